// SPDX-License-Identifier: Apache-2.0
// One mark phase over the whole process: roots, dirty pages, the two stops.
#pragma once

#include "base/types.h"
#include "gc/clean_pages.h"
#include "gc/facility.h"
#include "gc/filter.h"
#include "gc/gang.h"
#include "gc/marker.h"
#include "gc/pipes.h"
#include "gc/roots.h"
#include "gc/snapshot.h"
#include "plat/dirty.h"

namespace undergo::gc {

struct CycleTimes {
  uint64_t stop1_ns, mark_ns, stop2_ns;  // wall; of several stops at the end the longest
  uint64_t stopped_ns;                   // all stops together
  uint64_t start_ns;                     // CLOCK_MONOTONIC
  uint64_t live_at_end;
  uint64_t black_bytes;                 // handed out while marking
  uint64_t stack_bytes, globals_bytes;  // scanned
  uint32_t rounds;                      // of pre-cleaning
  uint32_t retries;                     // stops that took too long and were taken back
  uint32_t slices;                      // short stops that scanned written pages
  uint64_t copy_ns;                     // CPU time of the copy of the process
};

enum class Outcome : uint8_t { kDone, kAbandoned };

// Called between portions of concurrent marking: waits when the collector has had its share of CPU.
using ThrottleHook = void (*)();

class Cycle {
 public:
  // Everything from the reset of the marks to the flip. The coordinator calls it; no sweep is under
  // way.
  // Facilities before `first` are not used.
  Outcome Run(Facility first, int procs, ThrottleHook throttle);
  // What Run would use now. Before the first Run.
  Facility Probe(Facility first);
  const CycleTimes& times() const { return times_; }
  const char* reason() const { return reason_; }  // of an abandoned cycle
  // No cycle will ever be possible: words may be in flight in an io_uring, or a filter of system
  // calls would kill the process.
  bool hopeless() const { return io_uring_ || LoadRelaxed(&filter_.deadly); }
  bool io_uring() const { return io_uring_; }
  // The program is about to install a filter. Not while Run does anything.
  void Restrict(const FilterVerdict& verdict);
  // The mark is almost done but the program writes to pages as fast as they are scanned: who
  // allocates should wait. Waits until that is over, at most `ns`. Any thread.
  void WaitForFinish(uint64_t ns) const;
  bool IsFinishing() const { return LoadRelaxed(&finishing_) != 0; }
  // Waits until the mark that runs is over, at most `ns`. Any thread.
  void WaitForEnd(uint64_t ns) const;
  Facility facility() const { return facility_; }
  // Why the last Run or Probe did not take a better facility; empty if there is none.
  const char* change_reason() const { return change_reason_; }
  // Around the call by which the program opens a userfaultfd of its own. Any thread.
  void BeginUserfaultfd();
  void EndUserfaultfd();
  // Around a call that starts another program in the place of this one: no copy of the process is
  // left to it. Any thread, signal handlers too. EndExec comes when the call has failed.
  void BeginExec();
  void EndExec() { FetchAddAcqRel(&execs_, ~0u); }  // pairs: TakeSnapshot
  // Gives up what is registered with ours, for the program's. Not while Run does anything.
  void YieldUserfaultfd() {
    if (ProgramUsesUserfaultfd()) tracker_.Close();
  }
  bool HoldsUserfaultfd() const { return tracker_.IsOpen(); }
  MarkCounts counts() const;
  // Before Run: the last cycle found next to no garbage, or there was none.
  void SetQuiet(bool quiet) { clean_pages_.SetRare(quiet); }
  void SetCheckMark(bool on) { check_mark_ = on; }
  void StopGang() { gang_.Stop(); }
  // Bytes of its own tables.
  size_t MemorySize() const { return storage_ != nullptr ? sizeof(Storage) : 0; }
  WorkPool& pool() { return pool_; }
  // For assists, before the coordinator pauses.
  void Share() { marker().Share(); }
  const ScanTarget& target() const { return target_; }
  // Null when this mark reads everything.
  CleanPages* clean_pages() {
    return facility_ == Facility::kWriteProtect ? &clean_pages_ : nullptr;
  }
  // Called in the first stop, when objects begin to be born black.
  void SetBlackHook(void (*hook)()) { on_black_ = hook; }
  void SetGuard(uint64_t guard) { target_.guard = guard; }
  bool AddRoots(Addr from, Addr to);
  // Between two pieces of a root: works off what was found, if the program runs meanwhile.
  void DrainBetween();
  void AfterForkInChild();

 private:
  struct Range {
    Addr from, to;
  };
  static constexpr uint32_t kMaxExtra = 64;
  static constexpr uint32_t kMaxStacks = 4096;
  static constexpr uint32_t kMaxRuns = 1 << 16;
  static constexpr uint64_t kFewPages = 64;  // written ones: scanned without a look at the clock

  // What is too large for a process that never collects: mapped by the first cycle.
  struct Storage {
    Marker markers[Gang::kMax];  // the coordinator's own is the first
    Range stacks[kMaxStacks];    // live parts at the first stop
    Range dead[kMaxStacks];      // what lay below stack pointers at the first stop, for CheckMark
    Range runs[kMaxRuns];        // written pages that wait to be scanned in slices
    char buffers[Gang::kMax][kReadBuffer];
  };
  bool Prepare();
  Marker& marker() { return storage_->markers[0]; }
  char* buffer() { return storage_->buffers[0]; }

  struct Trouble {
    uint32_t failures;  // without a success in between
    uint32_t left_out;  // cycles that it is still not used for
    const char* reason;
  };

  bool Fail(const char* why);
  bool BuildRoots();
  // The facility failed, not the cycle as such: another may do better.
  bool FailTracking(const char* why);
  bool Begin();
  Facility Choose(Facility first);
  bool IsUsable(Facility f);
  bool MayCall();
  void LeaveOut(Facility f);
  bool ProgramUsesUserfaultfd() const;
  bool MarkBy(Facility f, ThrottleHook throttle);
  bool TrackedMark(ThrottleHook throttle);
  bool SnapshotMark(ThrottleHook throttle);
  bool StoppedMark();
  bool ReadKernel(void (*f)(void* context, uint64_t word), void* context);
  void ResetAllMarks();
  void BlackenCursors();
  bool ArmAll();
  void DisarmAll();
  bool ConcurrentMark(ThrottleHook throttle);
  bool PreClean(ThrottleHook throttle);
  bool FirstStop();
  size_t BytesToRescan() const;
  bool FinalStop(bool last, bool* again);
  void FinalJob(uint32_t worker);
  void RescanPages(Marker* marker, Addr from, Addr to);
  void RescanHeap(uint32_t worker);
  static uint64_t CountLeftOut();
  bool StopIsLate() const;
  bool FinishInSlices();
  bool SlicedRescan();
  bool StopWorld();
  uint64_t StartWorld();
  void Note(Addr from, Addr to);
  void DrainTogether();
  void ScanStopped(bool final);
  void ScanRange(const RootRange& r);
  void MarkPinned();
  void MarkRoots();
  bool MarkKernel();
  bool MarkPipes();
  bool ReadPipes(ChunkVisitor f, void* context, void (*word)(void* context, uint64_t word));
  bool TrackGrowth();
  bool CollectDirty(uint64_t* pages);
  bool PrepareRescan();
  void RescanRoots(uint32_t worker);
  bool RescanExtra();
  bool RescanKernel();
  void Flip();
  void SetFinishing(bool on);
  void SetEnded();
  void CheckMark();
  void LeaveOutDeadStacks();
  static void ReportMissed(uint64_t objects, const char* where);
  void GiveUp();

  // snapshot.cc
  bool TakeSnapshot();
  bool ReadLiveRoots();
  void MarkCopy();
  void RemoveCopy(bool kill);
  void ReadFrozenRoots();
  bool AwaitCopy(ThrottleHook throttle);

  plat::DirtyTracker tracker_;
  CleanPages clean_pages_;
  bool direct_writes_ = false;  // somebody may write to memory without a fault
  Facility facility_ = Facility::kStopped;
  Trouble trouble_[kFacilities] = {};
  bool tracking_failed_ = false;  // of the attempt that runs
  const char* change_reason_ = "";
  bool foreign_userfaultfd_ = false;  // the program had one when it was looked at last
  uint32_t userfaultfd_calls_ = 0;    // atomic
  uint32_t userfaultfd_pending_ = 0;  // atomic; calls under way
  uint32_t seen_calls_ = 0;           // userfaultfd_calls_ before the last look
  FilterVerdict filter_;              // what the program's filters would do
  bool filter_tried_ = false;         // one that was inherited was tried out
  Snapshot snapshot_;                 // mapped during a cycle
  long copy_ = 0;                     // atomic; process id, 0: none. Written by the coordinator
  uint32_t execs_ = 0;                // atomic; calls of exec under way
  WordList live_words_;               // that a copy would not see
  MarkCounts snapshot_counts_ = {};   // of the copy
  RootList roots_;
  WorkPool pool_;
  Gang gang_;
  ScanTarget target_ = {};
  void (*on_black_)() = nullptr;
  ThrottleHook throttle_ = nullptr;  // while roots are read beside the program
  CycleTimes times_ = {};
  const char* reason_ = "";
  uint32_t stack_count_ = 0;
  uint32_t dead_count_ = 0;
  Range extra_[kMaxExtra] = {};
  uint32_t extra_count_ = 0;
  Addr armed_end_[heap::kRegions] = {};  // of the last mark
  uint64_t armed_by_ = 0;                // tracker_.opened() then
  bool check_mark_ = false;
  bool io_uring_ = false;
  uint32_t finishing_ = 0;  // atomic; 1 while threads that allocate should wait; their futex
  uint32_t ended_ = 0;      // atomic; marks that are over; futex of WaitForEnd
  Storage* storage_ = nullptr;

  uint32_t run_count_ = 0;

  // Of the final stop, shared by the gang.
  uint64_t stop_began_ = 0;     // ns
  uint64_t work_deadline_ = 0;  // of the running stop, ns
  uint32_t next_chunk_ = 0;     // atomic; of the heap
  uint32_t next_root_ = 0;      // atomic; piece of the roots
  uint32_t roots_ready_ = 0;    // atomic; roots_ shows the mappings as they are now
  uint32_t dirty_pages_ = 0;    // atomic
  uint32_t give_up_ = 0;        // atomic; took too long, or tracking failed
  uint32_t lost_ = 0;           // atomic; tracking failed
  uint32_t working_ = 0;        // atomic; workers that drain
  bool last_ = false;           // takes what it takes
};

}  // namespace undergo::gc
