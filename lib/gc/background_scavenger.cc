// SPDX-License-Identifier: Apache-2.0
// The scavenger at work.
//
// Two things give memory back. The purge of the page heap (heap/mheap.cc) knows nothing but age:
// what was free for a while goes. It runs in every mode. The scavenger knows goals: what the heap
// will need until the next cycle, and the memory limit. It does not wait for pages to age, so it
// keeps the process near its goals while the heap is busy, and below the limit always.
//
// Rejected: replacing the purge by the scavenger also where there is no collector. The percent goal
// is made of heap goals, which only cycles give, and the thread that works in the background is the
// collector's.
#include "gc/background_scavenger.h"

#include "heap/thread_words.h"
#include "plat/clock.h"

namespace undergo::gc {

namespace {

uint64_t RetainedOf(const heap::MHeapStats& m) { return m.in_use_bytes + m.dirty_free_bytes; }

}  // namespace

heap::MHeapStats HeapNow() {
  heap::BusyScope busy;
  return heap::mheap.stats();
}

// In-use memory costs a 32nd more for headers and marks.
uint64_t MappedReady(const heap::MHeapStats& now) {
  return now.in_use_bytes + now.dirty_free_bytes + now.in_use_bytes / 32;
}

uint64_t BackgroundScavenger::Release(uint64_t bytes) {
  heap::BusyScope busy;
  return heap::mheap.Scavenge(bytes);
}

void BackgroundScavenger::NoteMarkEnd() { last_in_use_ = HeapNow().in_use_bytes; }

void BackgroundScavenger::SetGoals(int64_t memory_limit, uint64_t mapped_ready, uint64_t heap_goal,
                                   uint64_t last_heap_goal) {
  heap::MHeapStats now = HeapNow();
  ScavengeInput in;
  in.memory_limit = memory_limit;
  in.mapped_ready = mapped_ready;
  in.heap_goal = heap_goal;
  in.last_heap_goal = last_heap_goal;
  in.last_heap_in_use = last_in_use_;
  in.heap_retained = RetainedOf(now);
  goals_.Compute(in);
  exhausted_ = false;
  StoreRelaxed(&retained_, in.heap_retained);
  StoreRelaxed(&watching_, memory_limit != kNoMemoryLimit || goals_.percent_goal() != kNoGoal);
}

int64_t BackgroundScavenger::Burst(uint64_t now) {
  if (exhausted_) return 0;
  uint64_t start = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  worked_ = 0;
  while (worked_ < ScavengePace::kMinWork) {
    heap::MHeapStats heap = HeapNow();
    if (!goals_.Exceeded(RetainedOf(heap), MappedReady(heap))) break;
    uint64_t released = Release(ScavengePace::kQuantum);
    if (released == 0) {
      // Until the next cycle frees something.
      exhausted_ = true;
      break;
    }
    FetchAddRelaxed(&background_, released);
    worked_ = static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - start);
  }
  if (worked_ == 0) return 0;
  slept_since_ = now + static_cast<uint64_t>(worked_);
  return pace_.SleepAfter(worked_);
}

void BackgroundScavenger::Slept(uint64_t now) {
  int64_t slept = now > slept_since_ ? static_cast<int64_t>(now - slept_since_) : 0;
  pace_.Slept(slept, worked_, procs_);
}

int64_t BackgroundScavenger::Assist(int64_t memory_limit, bool limiting) {
  heap::MHeapStats heap = HeapNow();
  ScavengeInput in;
  in.memory_limit = memory_limit;
  in.mapped_ready = MappedReady(heap);
  in.heap_retained = RetainedOf(heap);
  uint64_t before = LoadRelaxed(&retained_);
  StoreRelaxed(&retained_, in.heap_retained);
  uint64_t growth = in.heap_retained > before ? in.heap_retained - before : 0;
  // The growth has happened already.
  in.heap_retained -= growth;
  uint64_t owed = goals_.OwedByAllocation(0, growth, in, limiting);
  if (owed == 0 || heap.dirty_free_bytes == 0) return 0;
  uint64_t start = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  FetchAddRelaxed(&eager_, Release(owed));
  return static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - start);
}

ScavengeTrace BackgroundScavenger::TakeTrace() {
  heap::MHeapStats heap = HeapNow();
  ScavengeTrace t;
  t.background = ExchangeAcqRel(&background_, uint64_t{0});  // pairs: nothing, counters
  t.eager = ExchangeAcqRel(&eager_, uint64_t{0});
  t.in_use = heap.in_use_bytes;
  t.retained = RetainedOf(heap);
  t.released = heap.committed_bytes - Min(heap.committed_bytes, t.retained);
  t.reset = pace_.TakeReset();
  return t;
}

}  // namespace undergo::gc
