// SPDX-License-Identifier: Apache-2.0
// A collection cycle.
//
// The program is not ours: no write barrier can be compiled into it, and its threads hold pointers
// anywhere. The kernel takes the place of the barrier: it tells which pages were written since they
// were armed (plat/dirty.h). Tri-colour marking then goes like this:
//
//   reset     free slots count as marked, all objects are white               program runs
//   arm       the heap and the larger roots are write-protected               program runs
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
// Stop 2 has a time budget. If the work found there is too much, the world starts again, and
// pre-cleaning goes on; after a few such attempts the stop takes what it takes. If threads do not
// stop, mappings cannot be read or tracking is lost, the cycle is abandoned: the marks mean nothing
// then and nothing is swept.
//
// Without a facility for dirty pages everything from reset to flip happens in one stop.
//
// Sources: Boehm, Demers, Shenker, "Mostly parallel garbage collection" (1991); Go's collector for
// phases and pacing. Rejected: mprotect and SIGSEGV (system calls fail on protected buffers, every
// page may become a mapping), soft-dirty (per process, and not in all kernels).
#include "base/assert.h"
#include "base/fmt.h"
#include "gc/cycle.h"
#include "gc/kernel_roots.h"
#include "heap/registry.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/clock.h"
#include "plat/vm.h"
#include "world/world.h"

namespace undergo::gc {

namespace {

constexpr uint64_t kStopWaitNs = 10'000'000;  // for the answers of all threads
constexpr uint64_t kStopWorkNs = 300'000;     // in stop 2, before it is taken back
constexpr uint32_t kMaxRetries = 4;
constexpr uint32_t kMaxRounds = 6;  // of pre-cleaning
constexpr uint64_t kFewPages = 64;
constexpr uint64_t kQuantum = 256 * kKiB;   // scanned between two looks at the clock
constexpr size_t kTrackedRoot = 64 * kKiB;  // smaller roots are read whole in stop 2

struct CopyContext {
  Marker* marker;
  bool bytewise;
};

void ScanCopy(void* context, const void* data, Addr, size_t n) {
  auto* c = static_cast<CopyContext*>(context);
  if (c->bytewise) {
    c->marker->ScanRootsBytewise(data, n);
  } else {
    c->marker->ScanRoots(data, n);
  }
}

// All slots that a cursor holds count as handed out.
void BlackenCursors() {
  for (heap::MCache* mc = heap::FirstMCache(); mc != nullptr; mc = mc->all_next) {
    mc->gc_small = 0;
    for (uint32_t cls = 0; cls < heap::kNumClasses; ++cls) {
      const heap::Cursor& c = mc->cursors[cls];
      uint64_t bits = LoadRelaxed(&c.bits);
      if (bits == 0) continue;
      heap::Span* s = c.span();
      size_t word = (c.base - heap::SpanAddr(s)) / c.size / 64;
      FetchOrAcqRel(&heap::MarkBits(s, heap::Plane::kMarked)[word], bits);  // pairs: SweepSpan
    }
  }
}

}  // namespace

bool Cycle::Fail(const char* why) {
  reason_ = why;
  return false;
}

bool Cycle::AddRoots(Addr from, Addr to) {
  if (extra_count_ == kMaxExtra) return false;
  extra_[extra_count_++] = {AlignUp(from, 8), AlignDown(to, 8)};
  return true;
}

void Cycle::ResetAllMarks() {
  heap::ForEachSpan([](heap::Span* s) { heap::ResetMarks(s); });
}

bool Cycle::ArmAll() {
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = heap::SliceAddr(heap::mheap.end(r));
    armed_end_[static_cast<int>(r)] = to > from ? to : from;
    if (to > from && !tracker_.Arm(from, to - from)) return Fail(tracker_.Reason());
  }
  for (size_t i = 0; i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    // A root that cannot be tracked is read whole in the final stop.
    if (r.to - r.from >= kTrackedRoot && !r.shared) tracker_.Arm(r.from, r.to - r.from);
  }
  return true;
}

void Cycle::DisarmAll() {
  if (facility_ != Facility::kWriteProtect) return;
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = armed_end_[static_cast<int>(r)];
    if (to > from) tracker_.Disarm(from, to - from);
  }
  for (size_t i = 0; i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    if (r.to - r.from >= kTrackedRoot && !r.shared) tracker_.Unregister(r.from, r.to - r.from);
  }
}

// World stopped. Registers at once; stacks now if final, else they are noted for later.
void Cycle::ScanStopped(bool final) {
  stack_count_ = 0;
  world::ForEachStopped([this, final](const world::StoppedThread& t) {
    if (t.frame != nullptr) marker_.ScanRoots(t.frame, AlignDown(t.frame_size, 8));
    Addr sp = AlignDown(t.sp, 8), high = t.stack_high;
    marker_.MarkWord(t.altstack);
    if (t.stack_low == t.stack_high) {
      // On a stack that we do not know: the mapping around it is a root as a whole. If it lies in
      // the heap, it is an object.
      marker_.MarkWord(t.sp);
      return;
    }
    if (stack_count_ < kMaxStacks) stacks_[stack_count_++] = {sp, high};
    if (final || stack_count_ == kMaxStacks) {
      times_.stack_bytes += high - sp;
      marker_.ScanRoots(reinterpret_cast<void*>(sp), high - sp);
    }
    roots_.Subtract(t.stack_low, t.stack_high);
  });
}

bool Cycle::FirstStop() {
  uint64_t start = plat::NowNs();
  if (world::StopTheWorld(kStopWaitNs) != world::StopResult::kStopped) {
    return Fail("a thread did not stop");
  }
  heap::gc_heap.black = true;
  StoreRelaxed(&heap::gc_heap.black_bytes, uint64_t{0});
  BlackenCursors();
  ScanStopped(false);
  world::StartTheWorld();
  times_.stop1_ns = plat::NowNs() - start;
  return true;
}

void Cycle::ScanRange(const RootRange& r) {
  CopyContext context = {&marker_, r.bytewise};
  ReadRoot(r, buffer_, ScanCopy, &context);
}

bool Cycle::MarkRoots() {
  for (uint32_t i = 0; i < stack_count_; ++i) {
    // A running stack: what is missed or stale is seen again in the final stop.
    CopyContext context = {&marker_, false};
    ReadRange(stacks_[i].from, stacks_[i].to, buffer_, ScanCopy, &context);
  }
  for (size_t i = 0; i < roots_.size(); ++i) ScanRange(roots_[i]);
  for (uint32_t i = 0; i < extra_count_; ++i) {
    CopyContext context = {&marker_, false};
    ReadRange(extra_[i].from, extra_[i].to, buffer_, ScanCopy, &context);
  }
  auto word = [](void* marker, uint64_t w) { static_cast<Marker*>(marker)->MarkWord(w); };
  ForEachKernelWord(word, &marker_);
  times_.globals_bytes = marker_.counts().root_bytes;
  return true;
}

bool Cycle::ConcurrentMark(ThrottleHook throttle) {
  while (!marker_.Drain(kQuantum)) {
    if (pool_.failed()) return Fail("no memory for the mark queue");
    throttle();
  }
  return !pool_.failed() || Fail("no memory for the mark queue");
}

// Pages written since they were armed: what is marked on them is scanned again.
bool Cycle::CollectDirty(bool rearm, bool roots_too, uint64_t* pages) {
  struct Context {
    Cycle* cycle;
    uint64_t pages;
    CopyContext copy;
    bool stopped, readable;
  } context = {this, 0, {&marker_, false}, !rearm, false};
  auto heap_run = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    c->pages += (to - from) / kOsPageSize;
    c->cycle->marker_.ScanPages(from, to);
  };
  auto root_run = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    if (c->stopped && c->readable) {
      ScanCopy(&c->copy, reinterpret_cast<void*>(from), from, to - from);
    } else {
      ReadRange(from, to, c->cycle->buffer_, ScanCopy, &c->copy);
    }
  };
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::SliceAddr(heap::RegionBegin(r)), to = heap::SliceAddr(heap::mheap.end(r));
    if (to > from && !tracker_.Collect(from, to - from, rearm, heap_run, &context)) {
      return Fail(tracker_.Reason());
    }
  }
  for (size_t i = 0; roots_too && i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    context.copy.bytewise = r.bytewise;
    context.readable = r.readable;
    if (!tracker_.Collect(r.from, r.to - r.from, rearm, root_run, &context)) {
      return Fail(tracker_.Reason());
    }
  }
  *pages = context.pages;
  return true;
}

bool Cycle::PreClean(ThrottleHook throttle) {
  uint64_t last = ~uint64_t{0};
  for (uint32_t round = 0; round < kMaxRounds; ++round) {
    uint64_t pages = 0;
    if (!CollectDirty(true, false, &pages) || !ConcurrentMark(throttle)) return false;
    times_.rounds++;
    if (pages <= kFewPages || pages > last - last / 4) break;
    last = pages;
  }
  return true;
}

void Cycle::Flip() {
  times_.black_bytes = LoadRelaxed(&heap::gc_heap.black_bytes);
  uint64_t live = marker_.counts().marked_bytes + times_.black_bytes;
  times_.live_at_end = LoadRelaxed(&heap::gc_heap.live_bytes);
  StoreRelaxed(&heap::gc_heap.live_bytes, live);
  for (heap::MCache* mc = heap::FirstMCache(); mc != nullptr; mc = mc->all_next) mc->gc_small = 0;
  heap::gc_heap.black = false;
  StoreRelaxed(&heap::gc_heap.unswept, true);
  StoreRelease(&heap::heap_sweepgen, heap::heap_sweepgen + 2);  // pairs: SweepSpan, NeedsSweep
}

// *again: it took too long; the world runs and marking is to go on.
bool Cycle::FinalStop(bool last, bool* again) {
  *again = false;
  uint64_t start = plat::NowNs();
  if (world::StopTheWorld(kStopWaitNs) != world::StopResult::kStopped) {
    return Fail("a thread did not stop");
  }
  uint64_t pages;
  bool done = roots_.Build() || Fail("the mappings cannot be read");
  if (done) ScanStopped(true);
  done = done && CollectDirty(false, true, &pages);
  while (done && !marker_.Drain(kQuantum)) {
    if (pool_.failed()) {
      done = Fail("no memory for the mark queue");
    } else if (!last && plat::NowNs() - start > kStopWorkNs) {
      *again = true;
      break;
    }
  }
  // Tracking must have worked up to this moment, or writes were missed.
  if (done && !*again) done = tracker_.CanaryOk() || Fail(tracker_.Reason());
  if (done && !*again) Flip();
  world::StartTheWorld();
  times_.stop2_ns = Max(times_.stop2_ns, plat::NowNs() - start);
  return done;
}

bool Cycle::StoppedMark() {
  uint64_t start = plat::NowNs();
  if (world::StopTheWorld(kStopWaitNs) != world::StopResult::kStopped) {
    return Fail("a thread did not stop");
  }
  ResetAllMarks();
  BlackenCursors();
  StoreRelaxed(&heap::gc_heap.black_bytes, uint64_t{0});
  bool done = roots_.Build() || Fail("the mappings cannot be read");
  if (done) {
    ScanStopped(true);
    stack_count_ = 0;
    MarkRoots();
    marker_.Drain(~uint64_t{0} >> 1);
    done = !pool_.failed() || Fail("no memory for the mark queue");
  }
  if (done) Flip();
  world::StartTheWorld();
  times_.stop2_ns = plat::NowNs() - start;
  return done;
}

Outcome Cycle::Run(bool stopped, ThrottleHook throttle) {
  times_ = {};
  times_.start_ns = plat::NowNs();
  reason_ = "";
  if (buffer_ == nullptr) buffer_ = plat::MapPages(kReadBuffer);
  target_.base = heap::arena.base;
  target_.size = heap::arena.size;
  pool_.Reset();
  marker_.Start(&pool_, target_);
  bool tracked = !stopped && tracker_.Open() && tracker_.CanaryOk();
  facility_ = tracked ? Facility::kWriteProtect : Facility::kStopped;
  bool done = buffer_ != nullptr;
  if (done && tracked) {
    ResetAllMarks();
    done = (roots_.Build() || Fail("the mappings cannot be read")) && ArmAll() && FirstStop();
    if (done) {
      done = MarkRoots() && ConcurrentMark(throttle);
      bool again = true;
      for (uint32_t i = 0; done && again; ++i) {
        done = PreClean(throttle) && FinalStop(i == kMaxRetries, &again);
        times_.retries += again;
      }
    }
    // Also what an abandoned cycle armed.
    DisarmAll();
  } else if (done) {
    done = StoppedMark();
  }
  heap::gc_heap.black = false;
  times_.mark_ns = plat::NowNs() - times_.start_ns - times_.stop1_ns - times_.stop2_ns;
  return done ? Outcome::kDone : Outcome::kAbandoned;
}

void Cycle::AfterForkInChild() {
  pool_.ResetAfterForkInChild();
  tracker_.AbandonInChild();
  heap::gc_heap.black = false;
}

}  // namespace undergo::gc
