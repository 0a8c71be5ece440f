// SPDX-License-Identifier: Apache-2.0
// Keeps the collector from taking more than half of the CPU for longer than a moment: a leaky
// bucket that fills with the collector's time and drains with the program's. No clock of its own;
// all times are nanoseconds.
#pragma once

#include "base/types.h"

namespace undergo::gc {

// Any thread may call the functions that are const, Update and Add...; the rest is for the thread
// that stopped the world. Nothing here waits: who is stopped in the middle of an Update delays no
// one.
class CpuLimiter {
 public:
  // Also when the number of CPUs changes; never while marking.
  void SetProcs(int procs, int64_t now);

  // Assists must do nothing and the memory limit must not be enforced by allocations while true.
  bool Limiting() const;

  void AddAssist(int64_t ns);  // marking or scavenging by allocating threads
  // CPUs without work, and idle workers: neither party's time. Who does not watch the CPUs knows
  // it as wall time of all CPUs less the CPU time of the process.
  void AddIdle(int64_t ns);

  // Update after each assist whose time was added, and whenever this is true (none for 10 ms).
  bool NeedsUpdate(int64_t now) const;
  void Update(int64_t now);

  // Around a stop that turns marking on or off. The time between counts as the collector's, on all
  // CPUs. `cycle` is the number of the cycle that starts or ends.
  void StartTransition(bool marking, int64_t now, uint64_t cycle);
  void FinishTransition(int64_t now);

  uint64_t last_limited_cycle() const;  // 0 if there was none
  int64_t fill() const;
  int64_t capacity() const;

 private:
  int64_t TakeWindow(int64_t now);
  void Accumulate(int64_t mutator_ns, int64_t gc_ns);

  // All by atomic operations.
  int64_t capacity_ = 0;     // CPU time, 1 s for each CPU
  int64_t fill_ = 0;         // CPU time, 0..capacity_
  int64_t last_update_ = 0;  // who moves it accounts for the time in between
  int64_t assist_pool_ = 0;  // CPU time not yet accounted for
  int64_t idle_pool_ = 0;    // CPU time not yet accounted for
  uint64_t cycle_ = 0;
  uint64_t last_limited_cycle_ = 0;
  int procs_ = 0;
  bool marking_ = false;
  bool stopped_ = false;  // in a transition
};

}  // namespace undergo::gc
