// SPDX-License-Identifier: Apache-2.0
// Keeps the collector from taking more than half of the CPU for longer than a moment: a leaky
// bucket that fills with the collector's time and drains with the program's. No clock of its own;
// all times are nanoseconds.
#pragma once

#include "base/types.h"

namespace undergo::gc {

// Time that is to be counted goes in by AddAssist and AddIdle from any thread, Limiting() is for
// any thread too. Of the rest, Update may be called by several threads at once (one of them works),
// the others only with the world stopped.
class CpuLimiter {
 public:
  // Also when the number of CPUs changes; never while marking.
  void SetProcs(int procs, int64_t now);

  // Assists must do nothing and the memory limit must not be enforced by allocations while true.
  bool Limiting() const;

  void AddAssist(int64_t ns);  // marking or scavenging by allocating threads
  void AddIdle(int64_t ns);    // CPUs without work, and idle workers: neither party's time

  bool NeedsUpdate(int64_t now) const;  // none for 10 ms
  void Update(int64_t now);

  // Around a stop that turns marking on or off. The time between counts as the collector's, on all
  // CPUs. `cycle` is the number of the cycle that starts or ends.
  void StartTransition(bool marking, int64_t now, uint64_t cycle);
  void FinishTransition(int64_t now);

  uint64_t last_limited_cycle() const;  // 0 if there was none
  int64_t fill() const { return fill_; }
  int64_t capacity() const { return capacity_; }

 private:
  bool TryLock();
  void Unlock();
  void Drain(int64_t now);
  void Accumulate(int64_t mutator_ns, int64_t gc_ns);
  void SetLimiting(bool on);

  int64_t capacity_ = 0;  // CPU time, 1 s for each CPU
  int64_t fill_ = 0;      // 0..capacity_
  int64_t last_update_ = 0;
  int64_t assist_pool_ = 0;  // atomic: since the last update
  int64_t idle_pool_ = 0;    // atomic: since the last update
  uint64_t cycle_ = 0;
  uint64_t last_limited_cycle_ = 0;
  int procs_ = 0;
  uint32_t lock_ = 0;
  bool limiting_ = false;
  bool marking_ = false;
};

}  // namespace undergo::gc
