// SPDX-License-Identifier: Apache-2.0
// How much free memory goes back to the kernel, and how fast. Arithmetic only; sizes are bytes,
// times are nanoseconds.
#pragma once

#include "base/types.h"
#include "gc/pacer.h"

namespace undergo::gc {

struct ScavengeInput {
  int64_t memory_limit = kNoMemoryLimit;
  uint64_t mapped_ready = 0;      // all memory we hold
  uint64_t heap_goal = 0;         // of the next cycle
  uint64_t last_heap_goal = 0;    // of the last cycle, 0 if there was none
  uint64_t last_heap_in_use = 0;  // slices with objects at the end of the last cycle
  uint64_t heap_retained = 0;     // now: slices with objects and free ones not given back
};

// The background scavenger works while one of the two is exceeded.
class ScavengeGoals {
 public:
  // After each cycle, and when settings change.
  void Compute(const ScavengeInput& in);
  bool Exceeded(uint64_t heap_retained, uint64_t mapped_ready) const;

  // What an allocation gives back itself: of memory that it will make resident (`pages_in`), and of
  // heap that it made by growing (`growth`). `limiting`: the CPU limiter is on.
  uint64_t OwedByAllocation(uint64_t pages_in, uint64_t growth, const ScavengeInput& in,
                            bool limiting) const;

  uint64_t percent_goal() const;  // of heap_retained; kNoGoal if there is nothing to do
  uint64_t limit_goal() const;    // of mapped_ready; kNoGoal if there is nothing to do

 private:
  uint64_t percent_goal_ = kNoGoal;  // any thread reads
  uint64_t limit_goal_ = kNoGoal;    // any thread reads
};

// A proportional-integral controller whose output is clamped, with back-calculation.
class PiController {
 public:
  constexpr PiController(double kp, double ti, double tt, double min, double max)
      : kp_(kp), ti_(ti), tt_(tt), min_(min), max_(max) {}
  // False if the numbers ran away; the controller starts afresh then and *output is the minimum.
  bool Next(double input, double setpoint, double period, double* output);

 private:
  double kp_, ti_, tt_;  // gain, time of the integral, time in which clamping is forgotten
  double min_, max_;
  double integral_ = 0;
};

// Keeps the background scavenger at one percent of the CPU time. One thread uses it.
class ScavengePace {
 public:
  static constexpr int64_t kMinWork = 1'000'000;  // work this long before sleeping
  static constexpr uint64_t kQuantum = 64 * kKiB;

  int64_t SleepAfter(int64_t worked) const;
  void Slept(int64_t slept, int64_t worked, int procs);
  bool TakeReset();  // true once after the controller failed: for the trace
  double ratio() const { return ratio_; }

 private:
  static constexpr double kStartRatio = 0.001;
  double ratio_ = kStartRatio;  // of work to sleep
  PiController controller_{0.3375, 3.2e6, 1e9, 0.001, 1000.0};
  int64_t cooldown_ = 0;
  bool was_reset_ = false;
};

}  // namespace undergo::gc
