// SPDX-License-Identifier: Apache-2.0
// A collection cycle.
//
// The program is not ours: no write barrier can be compiled into it, and its threads hold pointers
// anywhere. The kernel takes the place of the barrier: it tells which pages were written since they
// were armed (plat/dirty.h). Tri-colour marking then goes like this:
//
//   arm       the heap and the larger roots are write-protected               program runs
//   reset     free slots count as marked, all objects are white               program runs
//   stop 1    slots in cursors become black, and from now on every slot that  ~ 50 us
//             is handed out; registers are read, stacks noted
//   mark      from stacks, roots and words in the kernel through the heap     program runs, helps
//   pre-clean what is marked on pages that were written is scanned again,     program runs
//             and the pages are armed again, until they are few
//   stop 2    the rest of the written pages, the roots that are not tracked,  the pause
//             all stacks and registers, and what is found from there; flip
//   sweep     unmarked objects go on probation or become free                 program runs
//
// Why nothing is lost: at stop 2 each marked object was either scanned after its last change, or
// lies on a page that is scanned now; the same holds for roots. So what is reachable then is marked
// then. What dies during the mark stays for a cycle more. An object that is made during the mark is
// black, and its page is written by its making. Slots of a cursor are black at the flip, and all
// other free slots are swept before they are handed out (heap::EnsureSwept), so the sweep cannot
// take a new object for an old one.
//
// Stop 2 has a time budget. If the work found there is too much, the world starts again, and the
// written pages are scanned in slices, short stops with short breaks, so that the program cannot
// write faster than they are scanned; threads that allocate wait meanwhile. After many such
// attempts the stop takes what it takes. If threads do not stop, mappings cannot be read or
// tracking is lost, the cycle is abandoned: the marks mean nothing then and nothing is swept.
//
// That is the cycle with tracked writes. Without them snapshot.cc or facility.cc do the same in
// other ways.
//
// Sources: Boehm, Demers, Shenker, "Mostly parallel garbage collection" (1991); Go's collector for
// phases and pacing. Rejected: mprotect and SIGSEGV (system calls fail on protected buffers, every
// page may become a mapping), soft-dirty (per process, and not in all kernels).
#include "base/assert.h"
#include "base/fmt.h"
#include "gc/cycle.h"
#include "gc/kernel_words.h"
#include "gc/pauses.h"
#include "heap/blacklist.h"
#include "heap/blocked.h"
#include "heap/careful.h"
#include "heap/registry.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/log.h"
#include "plat/vm.h"
#include "world/world.h"

namespace undergo::gc {

constinit Pauses pauses;

namespace {

constexpr uint64_t kStopWaitNs = 10'000'000;  // for the answers of all threads
// Who has computed for a while may lose its CPU at any moment, in the middle of a stop too; after
// a sleep there is a whole slice first.
constexpr uint64_t kFreshSliceNs = 20'000;
constexpr uint32_t kStopTries = 6;  // on a machine with too much to do the first often fail
constexpr uint64_t kPatienceNs = 40'000'000;  // of those that wait for a CPU; doubled at each try
constexpr uint32_t kMaxPatienceShift = 3;
constexpr uint64_t kStopWorkNs = 300'000;  // in stop 2, before it is taken back
constexpr uint64_t kBreakNs = 200'000;     // between two slices of work
constexpr uint32_t kMaxRetries = 20;
constexpr size_t kSlicePages = 8;          // scanned between two looks at the clock
constexpr size_t kGangBytes = 64 * kMiB;   // from here on waking a helper up pays in stop 2
constexpr uint32_t kMaxRounds = 6;         // of pre-cleaning
constexpr uint64_t kQuantum = 256 * kKiB;  // scanned between two looks at the clock
constexpr uint32_t kAwaitTries = 4;        // for the work of assists, before
constexpr uint64_t kAwaitNs = 10'000;      // pauses that double
constexpr uint32_t kMaxAwaitShift = 6;
constexpr size_t kTrackedRoot = 64 * kKiB;  // smaller roots are read whole in stop 2

}  // namespace

bool Cycle::Fail(const char* why) {
  reason_ = why;
  return false;
}

bool Cycle::FailTracking(const char* why) {
  tracking_failed_ = true;
  return Fail(why);
}

// All slots that a cursor holds count as handed out.
void Cycle::BlackenCursors() {
  for (heap::MCache* mc = heap::FirstMCache(); mc != nullptr; mc = mc->all_next) {
    mc->gc_small = 0;
    for (uint32_t cls = 0; cls < heap::kNumClasses; ++cls) {
      const heap::Cursor& c = mc->cursors[cls];
      uint64_t bits = LoadRelaxed(&c.bits);
      if (bits == 0) continue;
      heap::Span* s = c.span();
      auto word = static_cast<uint32_t>((c.base - heap::SpanAddr(s)) / c.size / 64);
      heap::MarkWithoutScan(s, word, bits);
    }
  }
}

void Cycle::ResetAllMarks() {
  heap::gc_heap.marking = true;
  SpanQueue::ForgetAll();
  heap::ForgetMarks();
  heap::ForEachSpan([](heap::Span* s) { heap::ResetMarks(s); });
}

bool Cycle::ArmAll() {
  clean_pages_.Begin(target_, tracker_.opened());
  bool again =
      armed_by_ == tracker_.opened() && !LoadAcquire(&heap::careful_map.any);  // pairs: MakeCareful
  armed_by_ = tracker_.opened();
  auto written = [](void* p, Addr from, Addr to) {
    static_cast<CleanPages*>(p)->WrittenBefore(from, to);
  };
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = heap::SliceAddr(heap::mheap.end(r));
    Addr* end = &armed_end_[static_cast<int>(r)];
    Addr known = again ? Min(Max(*end, from), to) : from;
    *end = Max(from, to);
    if ((known > from && !tracker_.ArmAgain(from, known - from, written, &clean_pages_)) ||
        (to > known && !tracker_.Arm(known, to - known, written, &clean_pages_))) {
      return FailTracking(tracker_.Reason());
    }
  }
  for (size_t i = 0; i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    // A root that cannot be tracked is read whole in the final stop.
    if (r.to - r.from >= kTrackedRoot && !r.shared) tracker_.Arm(r.from, r.to - r.from);
  }
  clean_pages_.Armed();
  return true;
}

void Cycle::DisarmAll() {
  if (facility_ != Facility::kWriteProtect) return;
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = armed_end_[static_cast<int>(r)];
    clean_pages_.ForEachUnkept(from, to, [this](Addr a, Addr b) { tracker_.Disarm(a, b - a); });
  }
  for (size_t i = 0; i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    if (r.to - r.from >= kTrackedRoot && !r.shared) tracker_.Unregister(r.from, r.to - r.from);
  }
}

bool Cycle::FirstStop() {
  if (!StopWorld()) return false;
  heap::gc_heap.black = true;
  if (on_black_ != nullptr) on_black_();
  StoreRelaxed(&heap::gc_heap.black_bytes, uint64_t{0});
  BlackenCursors();
  ScanStopped(false);
  times_.stop1_ns = StartWorld();
  return true;
}

bool Cycle::ConcurrentMark(ThrottleHook throttle) {
  for (uint32_t tries = 0;;) {
    bool drained = marker().Drain(kQuantum);
    if (pool_.failed()) return Fail(pool_.reason());
    if (!drained || pool_.HasWork()) {
      throttle();
      tries = 0;
      continue;
    }
    // Assists may have the last work, and much may be found from there. Or they have no CPU.
    if (pool_.IsDone()) return true;
    if (!pool_.AwaitWork() && tries++ >= kAwaitTries) {
      plat::NapNs(kAwaitNs << Min(tries - kAwaitTries, kMaxAwaitShift));
    }
  }
}

// The heap has grown: what is new is tracked from now on, and counts as written until then.
bool Cycle::TrackGrowth() {
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr* armed = &armed_end_[static_cast<int>(r)];
    Addr end = heap::SliceAddr(heap::mheap.end(r));
    if (end <= *armed) continue;
    if (!tracker_.Extend(*armed, end - *armed)) return FailTracking(tracker_.Reason());
    *armed = end;
  }
  return true;
}

// Heap pages written since they were armed: what is marked on them is scanned again.
bool Cycle::CollectDirty(uint64_t* pages) {
  struct Context {
    Cycle* cycle;
    uint64_t pages;
  } context = {this, 0};
  if (!TrackGrowth()) return false;
  auto run = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    c->pages += (to - from) / kOsPageSize;
    c->cycle->clean_pages_.Written(from, to);
    c->cycle->marker().ScanPages(from, to);
  };
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = heap::SliceAddr(heap::mheap.end(r));
    if (to > from && !tracker_.Collect(from, to - from, true, run, &context)) {
      return FailTracking(tracker_.Reason());
    }
  }
  *pages = context.pages;
  return true;
}

// Until few written pages are left for the stop. If they do not become fewer, the program writes
// faster than they are scanned: mostly new objects. So from then on threads that allocate wait.
bool Cycle::PreClean(ThrottleHook throttle) {
  uint64_t last = ~uint64_t{0};
  for (uint32_t round = 0; round < kMaxRounds; ++round) {
    uint64_t pages = 0;
    if (!CollectDirty(&pages) || !ConcurrentMark(throttle)) return false;
    times_.rounds++;
    if (pages <= kFewPages) break;
    if (pages > last - last / 4) SetFinishing(true);
    last = pages;
  }
  return true;
}

// Keeps written pages for SlicedRescan, in short pieces.
void Cycle::Note(Addr from, Addr to) {
  clean_pages_.Written(from, to);
  while (from < to) {
    Addr end = Min(to, from + kSlicePages * kOsPageSize);
    if (run_count_ == kMaxRuns) {
      marker().ScanPages(from, end);
    } else {
      storage_->runs[run_count_++] = {from, end};
    }
    from = end;
  }
}

// The program writes to pages faster than they can be scanned beside it. So they are scanned in
// short stops, with short breaks in which it cannot write to many.
bool Cycle::SlicedRescan() {
  run_count_ = 0;
  if (!TrackGrowth()) return false;
  auto run = [](void* p, Addr from, Addr to) { static_cast<Cycle*>(p)->Note(from, to); };
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = heap::SliceAddr(heap::mheap.end(r));
    if (to > from && !tracker_.Collect(from, to - from, true, run, this)) {
      return FailTracking(tracker_.Reason());
    }
  }
  for (uint32_t i = 0; i < run_count_;) {
    if (!StopWorld()) return false;
    while (i < run_count_ && plat::NowNs() < work_deadline_) {
      marker().ScanPages(storage_->runs[i].from, storage_->runs[i].to);
      ++i;
      while (!marker().Drain(kQuantum) && plat::NowNs() < work_deadline_) {
      }
    }
    times_.stop2_ns = Max(times_.stop2_ns, StartWorld());
    times_.slices++;
    if (i < run_count_) plat::NapNs(kBreakNs);
  }
  return !pool_.failed() || Fail(pool_.reason());
}

void Cycle::Flip() {
  times_.black_bytes = LoadRelaxed(&heap::gc_heap.black_bytes);
  uint64_t live = counts().marked_bytes + times_.black_bytes;
  times_.live_at_end = heap::LiveBytes();
  StoreRelaxed(&heap::gc_heap.live_bytes, live);
  for (heap::MCache* mc = heap::FirstMCache(); mc != nullptr; mc = mc->all_next) mc->gc_small = 0;
  heap::gc_heap.black = heap::gc_heap.marking = false;
  StoreRelaxed(&heap::gc_heap.unswept, true);
  StoreRelease(&heap::heap_sweepgen, heap::heap_sweepgen + 2);  // pairs: SweepSpan, NeedsSweep
}

bool Cycle::StopWorld() {
  for (uint32_t i = 0; i < kStopTries; ++i) {
    plat::NapNs(kFreshSliceNs);
    uint64_t patience = kPatienceNs << Min(i, kMaxPatienceShift);
    bool stopped = world::StopTheWorld(kStopWaitNs, patience) == world::StopResult::kStopped;
    uint64_t now = plat::NowNs(), took = world::LastStopNs();
    stop_began_ = now - took;
    pauses.stopping.Add(took);
    // However long it took to stop: what is given back after that begins with another such stop.
    work_deadline_ = Max(stop_began_ + kStopWorkNs, now + kStopWorkNs / 2);
    if (stopped) return true;
    // Most threads stood still until it was given up.
    pauses.total.Add(took);
    times_.stopped_ns += took;
    if (i + 1 < kStopTries) plat::NapNs(kStopWaitNs << i);
  }
  return Fail("a thread did not stop");
}

// Returns how long the stop took. The clock is read before: once the others run, one of them may
// have taken this thread's CPU.
uint64_t Cycle::StartWorld() {
  uint64_t took = plat::NowNs() - stop_began_;
  times_.stopped_ns += took;
  pauses.total.Add(took);
  world::StartTheWorld();
  return took;
}

// The final stop has had its time, unless it takes what it takes.
bool Cycle::StopIsLate() const { return !last_ && plat::NowNs() > work_deadline_; }

// One worker's part of the final stop. The coordinator lists the roots as they are now and reads
// stacks, the others begin with the heap; what is left is for all.
void Cycle::FinalJob(uint32_t worker) {
  Marker& marker = storage_->markers[worker];
  if (worker == 0 && !PrepareRescan()) StoreRelaxed(&lost_, 1u);
  if (worker != 0) RescanHeap(worker);
  RescanRoots(worker);
  if (worker == 0) {
    if (!RescanExtra() || !RescanKernel()) StoreRelaxed(&lost_, 1u);
    RescanHeap(worker);
  }
  while (LoadRelaxed(&give_up_) == 0 && !marker.Drain(kQuantum)) {
    if (StopIsLate() || pool_.failed()) StoreRelaxed(&give_up_, 1u);
  }
  // What is left, here or by another worker that took a chunk of work late, is for the caller.
  marker.Flush();
}

// Address space that the final stop asks about written pages.
size_t Cycle::BytesToRescan() const {
  size_t bytes = 0;
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    bytes += size_t{heap::mheap.end(r) - heap::RegionBegin(r)} << heap::kSliceShift;
  }
  for (size_t i = 0; i < roots_.size(); ++i) bytes += roots_[i].to - roots_[i].from;
  return bytes;
}

// *again: it took too long; the world runs and marking is to go on.
bool Cycle::FinalStop(bool last, bool* again) {
  *again = false;
  last_ = last;
  next_chunk_ = next_root_ = roots_ready_ = dirty_pages_ = give_up_ = lost_ = 0;
  if (!BuildRoots()) return false;
  if (!tracker_.ArmCanary()) return FailTracking(tracker_.Reason());
  bool large = BytesToRescan() >= kGangBytes;
  if (!StopWorld()) return false;
  if (!(tracker_.IsUsable() || FailTracking(tracker_.Reason())) || !MarkPipes()) {
    times_.stop2_ns = Max(times_.stop2_ns, StartWorld());
    return false;
  }
  clean_pages_.SetBlind(true);
  if (large) {
    gang_.Run([](void* self, uint32_t i) { static_cast<Cycle*>(self)->FinalJob(i); }, this);
  } else {
    FinalJob(0);
  }
  bool done = lost_ == 0 || Fail("mappings or written pages cannot be read");
  *again = give_up_ != 0;
  while (done && !*again && !marker().Drain(kQuantum)) {
    *again = StopIsLate();
  }
  done = done && (!pool_.failed() || Fail(pool_.reason()));
  // Tracking must have worked up to this moment, or writes were missed.
  if (done && !*again) done = tracker_.CanaryHeld() || FailTracking(tracker_.Reason());
  if (done && !*again && check_mark_) CheckMark();
  if (done && !*again) Flip();
  clean_pages_.SetBlind(false);
  times_.stop2_ns = Max(times_.stop2_ns, StartWorld());
  return done;
}

// From the first attempt to the flip.
bool Cycle::FinishInSlices() {
  for (uint32_t attempt = 0;; ++attempt) {
    bool again;
    if (!FinalStop(attempt == kMaxRetries, &again)) return false;
    if (!again) return true;
    times_.retries++;
    SetFinishing(true);
    while (!marker().Drain(kQuantum)) {
    }
    if (!SlicedRescan()) return false;
  }
}

void Cycle::SetFinishing(bool on) {
  StoreRelease(&finishing_, on ? 1u : 0u);  // pairs: WaitForFinish
  if (!on) plat::FutexWake(&finishing_, INT32_MAX);
}

void Cycle::WaitForFinish(uint64_t ns) const {
  uint64_t start = plat::NowNs();
  for (uint64_t waited = 0; LoadAcquire(&finishing_) != 0 && waited < ns;) {  // pairs: SetFinishing
    heap::CallBlocked(plat::FutexWaitFor, &finishing_, 1u, ns - waited);
    waited = plat::NowNs() - start;
  }
}

void Cycle::SetEnded() {
  FetchAddAcqRel(&ended_, 1u);  // pairs: WaitForEnd
  plat::FutexWake(&ended_, INT32_MAX);
}

void Cycle::WaitForEnd(uint64_t ns) const {
  uint32_t before = LoadAcquire(&ended_);  // pairs: SetEnded
  if (heap::gc_heap.black) heap::CallBlocked(plat::FutexWaitFor, &ended_, before, ns);
}

MarkCounts Cycle::counts() const {
  MarkCounts sum = snapshot_counts_;
  if (storage_ == nullptr) return sum;
  for (const Marker& m : storage_->markers) {
    sum.marked_bytes += m.counts().marked_bytes;
    sum.marked_objects += m.counts().marked_objects;
    sum.scanned_bytes += m.counts().scanned_bytes;
    sum.skipped_bytes += m.counts().skipped_bytes;
    sum.rescanned_bytes += m.counts().rescanned_bytes;
    sum.root_bytes += m.counts().root_bytes;
  }
  return sum;
}

void Cycle::ReportMissed(uint64_t objects, const char* where) {
  char line[160];
  Fmt out(line, sizeof line);
  out.Str("undergo: gccheckmark: ").Dec(objects).Str(" objects were missed, reached from ");
  out.Str(where).Char('\n');
  plat::LogWrite(out.text(), out.length());
  UNDERGO_CHECK(objects == 0);
}

// GODEBUG=gccheckmark=1, world stopped, before the flip: reads all stacks and roots again, whether
// they were written or not. What is marked by that was missed by the concurrent mark. The heap is
// left out: objects that were never written hold old words, which the mark rightly did not read.
void Cycle::CheckMark() {
  auto step = [this](const char* where, uint64_t before) {
    marker().Drain(~uint64_t{0} >> 1);
    uint64_t missed = counts().marked_objects - before;
    if (missed != 0) ReportMissed(missed, where);
  };
  uint64_t left_out = CountLeftOut();
  if (left_out != 0) ReportMissed(left_out, "slices that the final stop left out");
  // An old word may lead to a slot that was freed, or made, after the word was read.
  heap::ForEachSpan(heap::MarkFreeSlots);
  uint64_t before = counts().marked_objects;
  ScanStopped(true);
  step("stacks and registers", before);
  LeaveOutDeadStacks();
  MarkKernel();
  MarkRoots();
  step("roots", before);
  uint64_t wrong = facility_ == Facility::kWriteProtect ? clean_pages_.CountWrong(target_) : 0;
  if (wrong != 0) ReportMissed(wrong, "pages that count as free of pointers");
}

// The best case: the program runs during the mark, and the kernel tells what it wrote.
bool Cycle::TrackedMark(ThrottleHook throttle) {
  kernel_words.Begin();
  bool done = BuildRoots() && ArmAll();
  // After arming: a slot that is free now is written to after its page was armed, if ever.
  if (done) ResetAllMarks();
  done = done && FirstStop();
  throttle_ = throttle;
  done = done && MarkKernel();
  if (done) MarkRoots();
  throttle_ = nullptr;
  done = done && ConcurrentMark(throttle) && PreClean(throttle) && FinishInSlices();
  SetFinishing(false);
  SetEnded();
  clean_pages_.End(done && !direct_writes_);
  // Also what an abandoned cycle armed.
  DisarmAll();
  return done;
}

}  // namespace undergo::gc
