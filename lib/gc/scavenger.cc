// SPDX-License-Identifier: Apache-2.0
// Goals and pace of the scavenger.
//
// Problem. Free memory that stays with us makes the next allocations fast and the process large.
//
// Parts. Two goals, Go's: the heap keeps what it will need when it grows to its goal, and a tenth
// more; all memory together stays five percent below the memory limit. How much page memory the
// heap will need is what it needed last time, scaled as the goal moved, so fragmentation is in it.
// The background scavenger works in bursts of a millisecond. How long it sleeps between them is set
// by a controller that aims at one percent of the CPUs, because what a burst really costs (page
// faults of others, the kernel's locks) shows only in the time that passes.

#include "gc/scavenger.h"

#include "base/atomic.h"

namespace undergo::gc {
namespace {

constexpr double kLimitFraction = 0.95;
constexpr uint64_t kRetainDivisor = 10;  // a tenth more than needed
constexpr double kTargetFraction = 0.01;
constexpr int64_t kCooldown = 5'000'000'000;

}  // namespace

void ScavengeGoals::Compute(const ScavengeInput& in) {
  uint64_t limit = kNoGoal;
  if (in.memory_limit != kNoMemoryLimit) {
    limit = static_cast<uint64_t>(static_cast<double>(in.memory_limit) * kLimitFraction);
    if (in.mapped_ready <= limit) limit = kNoGoal;
  }
  StoreRelaxed(&limit_goal_, limit);

  uint64_t percent = kNoGoal;
  // Before the second cycle, or without a goal, nothing is known about the future.
  if (in.last_heap_goal != 0 && in.last_heap_goal != kNoGoal && in.heap_goal != kNoGoal) {
    double ratio = static_cast<double>(in.heap_goal) / static_cast<double>(in.last_heap_goal);
    percent = static_cast<uint64_t>(static_cast<double>(in.last_heap_in_use) * ratio);
    percent = AlignUp(percent + percent / kRetainDivisor, kOsPageSize);
    if (in.heap_retained < percent + kOsPageSize) percent = kNoGoal;
  }
  StoreRelaxed(&percent_goal_, percent);
}

bool ScavengeGoals::Exceeded(uint64_t heap_retained, uint64_t mapped_ready) const {
  return heap_retained > percent_goal() || mapped_ready > limit_goal();
}

uint64_t ScavengeGoals::OwedByAllocation(uint64_t pages_in, uint64_t growth,
                                         const ScavengeInput& in, bool limiting) const {
  uint64_t owed = 0;
  uint64_t limit = static_cast<uint64_t>(in.memory_limit);
  if (!limiting && in.mapped_ready + pages_in > limit) owed = in.mapped_ready + pages_in - limit;
  uint64_t goal = percent_goal();
  if (in.heap_retained + growth > goal)
    owed = Max(owed, Min(growth, in.heap_retained + growth - goal));
  return owed;
}

uint64_t ScavengeGoals::percent_goal() const { return LoadRelaxed(&percent_goal_); }
uint64_t ScavengeGoals::limit_goal() const { return LoadRelaxed(&limit_goal_); }

bool PiController::Next(double input, double setpoint, double period, double* output) {
  double error = setpoint - input;
  double raw = kp_ * error + integral_;
  double clamped = raw < min_ ? min_ : raw;
  if (clamped > max_) clamped = max_;
  double integral = integral_ + kp_ * period / ti_ * error + period / tt_ * (clamped - raw);
  if (!__builtin_isfinite(raw) || !__builtin_isfinite(integral)) {
    integral_ = 0;
    *output = min_;
    return false;
  }
  integral_ = integral;
  *output = clamped;
  return true;
}

int64_t ScavengePace::SleepAfter(int64_t worked) const {
  // Shorter bursts make sleeps that no timer keeps.
  if (worked < kMinWork) worked = kMinWork;
  return static_cast<int64_t>(static_cast<double>(worked) / ratio_);
}

void ScavengePace::Slept(int64_t slept, int64_t worked, int procs) {
  if (worked < kMinWork) worked = kMinWork;
  if (cooldown_ > 0) {
    int64_t passed = slept + worked;
    cooldown_ = passed > cooldown_ ? 0 : cooldown_ - passed;
    return;
  }
  double period = static_cast<double>(slept + worked);
  double fraction = static_cast<double>(worked) / (period * procs);
  if (!controller_.Next(fraction, kTargetFraction, period, &ratio_)) {
    ratio_ = kStartRatio;
    cooldown_ = kCooldown;
    was_reset_ = true;
  }
}

bool ScavengePace::TakeReset() {
  bool was = was_reset_;
  was_reset_ = false;
  return was;
}

}  // namespace undergo::gc
