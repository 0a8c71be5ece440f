// SPDX-License-Identifier: Apache-2.0
// How the program's writes during a mark are noticed: the choice among three facilities, and the
// last of them.
//
//   write-protection   gc.cc, plat/dirty.h. The program runs during the mark.
//   snapshot           snapshot.cc. A stop as long as a fork, then the program runs.
//   stopped            here. The whole mark in one stop, by all helpers at once.
//
// Each cycle takes the first that works, from the setting UNDERGO=tracking= on downwards. One that
// fails in the middle of a cycle (the program closed our descriptors, installed a filter, ran into
// a limit on processes) is left out for the next cycles, twice as many after each failure, and the
// cycle begins anew with the next. So whoever breaks a facility costs time, never an object.
//
// A program that uses userfaultfd itself gets the last: ranges can belong to one userfaultfd only,
// so its own registrations could fail because of ours, and a copy of the process could wait for its
// handler. It is noticed by its descriptors in each cycle, and by its system call between them.
#include "base/atomic.h"
#include "gc/cycle.h"
#include "gc/kernel_roots.h"
#include "heap/blacklist.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/clock.h"
#include "plat/copy.h"
#include "plat/syscall.h"
#include "plat/vm.h"
#include "world/world.h"

namespace undergo::gc {

namespace {

constexpr uint32_t kMaxLeftOut = 256;                  // cycles
constexpr uint64_t kAssistPatienceNs = 1'000'000'000;  // for assists of an abandoned cycle
constexpr uint64_t kAssistNapNs = 50'000;

}  // namespace

const char* FacilityName(Facility f) {
  if (f == Facility::kWriteProtect) return "userfaultfd";
  return f == Facility::kSnapshot ? "snapshot" : "stop";
}

bool Cycle::ReadKernel(void (*f)(void* context, uint64_t word), void* context) {
  KernelUse use;
  uint32_t calls = LoadAcquire(&userfaultfd_calls_);  // pairs: EndUserfaultfd
  bool tracked = facility_ == Facility::kWriteProtect;
  Pipes* list = LoadRelaxed(&filter_.no_pipes) ? nullptr : &pipes;
  if (!ForEachKernelWord(f, context, &use, tracked, list)) return Fail("/proc cannot be read");
  io_uring_ = use.io_uring || roots_.has_io_uring();
  if (io_uring_) {
    return Fail("the program uses io_uring, which keeps pointers where nobody can see them");
  }
  direct_writes_ = use.direct_writes || roots_.has_direct_writer();
  foreign_userfaultfd_ = use.userfaultfds > (tracker_.IsOpen() ? 1u : 0u);
  seen_calls_ = calls;
  if (facility_ == Facility::kStopped || !ProgramUsesUserfaultfd()) return true;
  return FailTracking("the program uses userfaultfd itself");
}

// World stopped, after ReadKernel and before memory is read: see gc/pipes.cc.
bool Cycle::ReadPipes(ChunkVisitor f, void* context, void (*word)(void* context, uint64_t word)) {
  if (LoadRelaxed(&filter_.no_pipes)) return true;
  PipeRead result = pipes.Read(buffer(), f, context);
  if (result == PipeRead::kStale) {
    if (!ReadKernel(word, context)) return false;
    result = pipes.Read(buffer(), f, context);
  }
  return result == PipeRead::kDone || Fail("a pipe cannot be looked at");
}

bool Cycle::MarkPipes() {
  auto bytes = [](void* marker, const void* data, Addr, size_t n) {
    static_cast<Marker*>(marker)->ScanRootsBytewise(data, n);
  };
  auto word = [](void* marker, uint64_t w) { static_cast<Marker*>(marker)->MarkWord(w); };
  return ReadPipes(bytes, &marker(), word);
}

void Cycle::BeginUserfaultfd() {
  FetchAddAcqRel(&userfaultfd_pending_, 1u);  // pairs: ProgramUsesUserfaultfd
}

// In this order: a look at the descriptors before the call does not count for what came after it.
void Cycle::EndUserfaultfd() {
  FetchAddAcqRel(&userfaultfd_calls_, 1u);     // pairs: ReadKernel
  FetchAddAcqRel(&userfaultfd_pending_, ~0u);  // pairs: ProgramUsesUserfaultfd
}

bool Cycle::ProgramUsesUserfaultfd() const {
  // Calls since the descriptors were looked at last may have opened one.
  return LoadAcquire(&userfaultfd_pending_) != 0 ||
         foreign_userfaultfd_ ||                           // pairs: EndUserfaultfd
         LoadAcquire(&userfaultfd_calls_) != seen_calls_;  // pairs: EndUserfaultfd
}

void Cycle::Restrict(const FilterVerdict& verdict) {
  if (verdict.deadly) StoreRelaxed(&filter_.deadly, true);
  if (verdict.no_uffd) StoreRelaxed(&filter_.no_uffd, true);
  if (verdict.no_snapshot) StoreRelaxed(&filter_.no_snapshot, true);
  if (verdict.no_pipes) StoreRelaxed(&filter_.no_pipes, true);
  if (verdict.no_placement) gang_.LeavePlacement();
}

// No filter of system calls kills for what a cycle needs.
bool Cycle::MayCall() {
  if (!filter_tried_) {
    FilterVerdict verdict = TryOutFilter();
    if (verdict.unknown) return Fail("a filter of system calls cannot be tried out");
    Restrict(verdict);
    filter_tried_ = true;
  }
  return !LoadRelaxed(&filter_.deadly) || Fail("a filter of system calls would kill the process");
}

bool Cycle::IsUsable(Facility f) {
  if (f == Facility::kStopped) return true;
  if (LoadRelaxed(f == Facility::kSnapshot ? &filter_.no_snapshot : &filter_.no_uffd)) {
    reason_ = "a filter of system calls would kill the process";
    return false;
  }
  if (ProgramUsesUserfaultfd()) {
    reason_ = "the program uses userfaultfd itself";
    return false;
  }
  Trouble& t = trouble_[static_cast<int>(f)];
  if (t.left_out != 0) {
    --t.left_out;
    reason_ = t.reason;
    return false;
  }
  if (f == Facility::kSnapshot) {
    // Should the program make one, it must not find our descriptor in its way.
    tracker_.Close();
    return true;
  }
  if (tracker_.IsOpen() && !tracker_.CanaryOk()) tracker_.Close();
  if (tracker_.Open() && tracker_.CanaryOk()) return true;
  reason_ = tracker_.Reason();
  LeaveOut(f);
  return false;
}

void Cycle::LeaveOut(Facility f) {
  Trouble& t = trouble_[static_cast<int>(f)];
  t.failures = Min(t.failures + 1, 8u);
  t.left_out = Min(1u << t.failures, kMaxLeftOut);
  t.reason = reason_;
}

Facility Cycle::Choose(Facility first) {
  auto f = static_cast<uint8_t>(first);
  while (!IsUsable(static_cast<Facility>(f))) ++f;
  auto choice = static_cast<Facility>(f);
  if (choice == Facility::kStopped) tracker_.Close();
  return choice;
}

bool Cycle::MarkBy(Facility f, ThrottleHook throttle) {
  if (f == Facility::kWriteProtect) return TrackedMark(throttle);
  return f == Facility::kSnapshot ? SnapshotMark(throttle) : StoppedMark();
}

// All helpers that come, until no work is left anywhere.
void Cycle::DrainTogether() {
  working_ = 0;
  auto job = [](void* self, uint32_t worker) {
    auto* c = static_cast<Cycle*>(self);
    for (uint32_t spins = 0;;) {
      FetchAddAcqRel(&c->working_, 1u);  // pairs: the load below
      c->storage_->markers[worker].Drain(~uint64_t{0} >> 1);
      FetchAddAcqRel(&c->working_, ~0u);  // pairs: the load below
      while (!c->pool_.HasWork()) {
        if (LoadAcquire(&c->working_) == 0) return;  // pairs: the additions above
        CpuRelax();
        if (++spins % 256 == 0) plat::Syscall(__NR_sched_yield);
      }
    }
  };
  gang_.Run(job, this);
}

bool Cycle::StoppedMark() {
  if (!StopWorld()) return false;
  ResetAllMarks();
  BlackenCursors();
  StoreRelaxed(&heap::gc_heap.black_bytes, uint64_t{0});
  bool done = BuildRoots() && MarkKernel() && MarkPipes();
  if (done) {
    ScanStopped(true);
    stack_count_ = 0;
    MarkRoots();
    marker().Flush();
    DrainTogether();
    done = done && (!pool_.failed() || Fail(pool_.reason()));
  }
  if (done) Flip();
  times_.stop2_ns = StartWorld();
  return done;
}

// The marks of an abandoned cycle mean nothing: everything is live.
void Cycle::GiveUp() {
  heap::gc_heap.black = false;
  if (!heap::gc_heap.marking) return;
  uint64_t live = 0;
  heap::ForEachSpan([&live](heap::Span* s) { live += heap::RecountMarks(s); });
  StoreRelaxed(&heap::gc_heap.live_bytes, live);
  heap::gc_heap.marking = false;
}

bool Cycle::Prepare() {
  if (storage_ == nullptr) storage_ = static_cast<Storage*>(plat::MapPages(sizeof(Storage)));
  return storage_ != nullptr || Fail("no memory");
}

// Assists that outlived an abandoned cycle may still hold spans, which would get into two queues.
bool Cycle::Begin() {
  uint64_t end = plat::NowNs() + kAssistPatienceNs;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // `black` is false; pairs: BeginScan in an assist
  while (pool_.HasScanners()) {
    if (plat::NowNs() > end) return Fail("a thread that helped the last cycle does not come back");
    plat::NapNs(kAssistNapNs);
  }
  reason_ = "";
  tracking_failed_ = false;
  pool_.Reset();
  heap::blacklist.Begin();
  snapshot_counts_ = {};
  return true;
}

Outcome Cycle::Run(Facility first, int procs, ThrottleHook throttle) {
  times_ = {};
  times_.start_ns = plat::NowNs();
  if (!Prepare() || !MayCall()) return Outcome::kAbandoned;
  gang_.Start(static_cast<uint32_t>(procs - 1));
  target_.base = heap::arena.base;
  // Not arena.size: where nothing is reserved the heap may grow beyond it in the middle of a cycle.
  target_.size = size_t{heap::RegionLimit(heap::Region::kUpper)} << heap::kSliceShift;
  bool done = false;
  for (;;) {
    if (!Begin()) break;
    facility_ = Choose(first);
    change_reason_ = reason_;
    for (Marker& m : storage_->markers) m.Start(&pool_, target_, clean_pages());
    done = MarkBy(facility_, throttle);
    if (done) {
      trouble_[static_cast<int>(facility_)].failures = 0;
      break;
    }
    GiveUp();
    if (!tracking_failed_ || facility_ == Facility::kStopped) break;
    LeaveOut(facility_);
  }
  if (done) pool_.Release();
  times_.mark_ns = plat::NowNs() - times_.start_ns - times_.stopped_ns;
  return done ? Outcome::kDone : Outcome::kAbandoned;
}

Facility Cycle::Probe(Facility first) {
  Facility f = MayCall() ? Choose(first) : Facility::kStopped;
  change_reason_ = reason_;
  tracker_.Close();
  return f;
}

void Cycle::AfterForkInChild() {
  gang_.AfterForkInChild();
  finishing_ = 0;
  copy_ = 0;  // a child of the parent
  execs_ = 0;
  userfaultfd_pending_ = 0;
  snapshot_.Unmap();
  pool_.ResetAfterForkInChild();
  tracker_.AbandonInChild();
  GiveUp();
}

}  // namespace undergo::gc
