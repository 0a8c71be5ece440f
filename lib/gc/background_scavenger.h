// SPDX-License-Identifier: Apache-2.0
// The scavenger at work: gives free memory of the page heap back to the system, in the background
// by the coordinator and, where a goal is passed, by the threads that allocate. How much and how
// fast is decided by gc/scavenger.h.
#pragma once

#include "gc/scavenger.h"
#include "gc/trace.h"
#include "heap/mheap.h"

namespace undergo::gc {

class BackgroundScavenger {
 public:
  void Start(int procs) { procs_ = procs; }
  // The heap is as large as it was to become in this cycle: before the sweep.
  void NoteMarkEnd();
  // After each cycle and when settings change: new goals. Sizes in bytes; mapped_ready is only
  // needed with a memory limit.
  void SetGoals(int64_t memory_limit, uint64_t mapped_ready, uint64_t heap_goal,
                uint64_t last_heap_goal);

  // For the coordinator when it has nothing else to do: works for about a millisecond if a goal is
  // exceeded and returns for how long to sleep then, in nanoseconds; 0: there was nothing to do.
  // After the sleep, Slept.
  int64_t Burst(uint64_t now);
  void Slept(uint64_t now);

  // A thread allocates, and some goal is set: gives back itself what it owes. Any thread, outside
  // of BusyScope. Returns nanoseconds of CPU time.
  int64_t Assist(int64_t memory_limit, bool limiting);
  bool Watches() const { return LoadRelaxed(&watching_); }

  // For GODEBUG=scavtrace=1: since the last call.
  ScavengeTrace TakeTrace();

 private:
  uint64_t Release(uint64_t bytes);

  ScavengeGoals goals_;
  ScavengePace pace_;         // coordinator
  int procs_ = 1;             //
  bool watching_ = false;     // atomic; a goal is set
  bool exhausted_ = false;    // coordinator; the goals ask for more than there is
  uint64_t last_in_use_ = 0;  // coordinator; at the end of the last cycle
  uint64_t retained_ = 0;     // atomic; at the last look, to see growth
  int64_t worked_ = 0;        // coordinator; ns, in the last burst
  uint64_t slept_since_ = 0;  // coordinator; ns
  uint64_t background_ = 0;   // atomic; bytes since the last trace
  uint64_t eager_ = 0;        // atomic; the same of Assist
};

heap::MHeapStats HeapNow();  // of the page heap; any thread, outside of BusyScope too
// All memory that we hold, for the memory limit: the heap as far as it was not given back, tables.
uint64_t MappedReady(const heap::MHeapStats& now);

}  // namespace undergo::gc
