// SPDX-License-Identifier: Apache-2.0
// The scavenger's goals by hand, its controller by simulation.

#include "gc/scavenger.h"

#include <criterion/criterion.h>

#include <cmath>

using namespace undergo;
using namespace undergo::gc;

namespace {
constexpr int64_t kMs = 1'000'000;
}

Test(scavenger, percent_goal) {
  ScavengeGoals g;
  cr_expect(!g.Exceeded(1 << 30, 1 << 30));
  ScavengeInput in{.heap_goal = 80 * kMiB,
                   .last_heap_goal = 100 * kMiB,
                   .last_heap_in_use = 120 * kMiB,
                   .heap_retained = 200 * kMiB};
  g.Compute(in);
  // 120 * 0.8 * 1.1 = 105.6 MiB, to whole pages.
  cr_expect(g.percent_goal() == AlignUp(100663296 + 10066329, 4096), "%lu", g.percent_goal());
  cr_expect(g.limit_goal() == kNoGoal);
  cr_expect(g.Exceeded(g.percent_goal() + 1, 0) && !g.Exceeded(g.percent_goal(), UINT64_MAX));
  // Within a page: nothing to do.
  in.heap_retained = g.percent_goal() + 4095;
  g.Compute(in);
  cr_expect(g.percent_goal() == kNoGoal);
  in.heap_retained += 1;
  g.Compute(in);
  cr_expect(g.percent_goal() != kNoGoal);
  // Before the second cycle, and without a goal.
  in.last_heap_goal = 0;
  g.Compute(in);
  cr_expect(g.percent_goal() == kNoGoal);
  in.last_heap_goal = in.heap_goal = kNoGoal;
  g.Compute(in);
  cr_expect(g.percent_goal() == kNoGoal);
}

Test(scavenger, limit_goal) {
  ScavengeGoals g;
  ScavengeInput in{.memory_limit = 1000000, .mapped_ready = 950000};
  g.Compute(in);
  cr_expect(g.limit_goal() == kNoGoal);
  in.mapped_ready = 950001;
  g.Compute(in);
  cr_expect(g.limit_goal() == 950000, "%lu", g.limit_goal());
  cr_expect(g.Exceeded(0, 950001) && !g.Exceeded(0, 950000));
  in.memory_limit = kNoMemoryLimit;
  in.mapped_ready = UINT64_MAX / 2;
  g.Compute(in);
  cr_expect(g.limit_goal() == kNoGoal);
}

Test(scavenger, owed_by_allocations) {
  ScavengeGoals g;
  ScavengeInput in{.memory_limit = 1000, .mapped_ready = 900};
  g.Compute(in);
  cr_expect(g.OwedByAllocation(100, 0, in, false) == 0);
  cr_expect(g.OwedByAllocation(150, 0, in, false) == 50);
  cr_expect(g.OwedByAllocation(150, 0, in, true) == 0);  // rather exceed the limit
  in = {.heap_goal = 100,
        .last_heap_goal = 100,
        .last_heap_in_use = 100 * kMiB,
        .heap_retained = 115 * kMiB};
  g.Compute(in);  // 110 MiB
  cr_expect(g.percent_goal() == 110 * kMiB);
  cr_expect(g.OwedByAllocation(0, 4 * kMiB, in, false) == 4 * kMiB);
  in.heap_retained = 109 * kMiB;
  cr_expect(g.OwedByAllocation(0, 4 * kMiB, in, false) == 3 * kMiB);
  cr_expect(g.OwedByAllocation(0, 4 * kMiB, in, true) == 3 * kMiB);
  in.heap_retained = 100 * kMiB;
  cr_expect(g.OwedByAllocation(0, 4 * kMiB, in, false) == 0);
  // The larger of the two.
  in.heap_retained = 109 * kMiB;
  in.memory_limit = 200 * kMiB;
  in.mapped_ready = 200 * kMiB;
  cr_expect(g.OwedByAllocation(5 * kMiB, 4 * kMiB, in, false) == 5 * kMiB);
}

Test(scavenger, controller_step_by_step) {
  PiController c(0.5, 2.0, 4.0, -1.0, 1.0);
  double out = 0;
  // error 1: raw 0.5; integral 0.5 * 1 / 2 * 1 = 0.25
  cr_expect(c.Next(0, 1, 1, &out) && out == 0.5);
  // raw 0.75, integral 0.5
  cr_expect(c.Next(0, 1, 1, &out) && out == 0.75);
  // error 4: raw 2.5, clamped to 1; integral 0.5 + 1 + (1 - 2.5) / 4 = 1.125
  cr_expect(c.Next(0, 4, 1, &out) && out == 1.0);
  // error 0: raw 1.125, clamped; integral 1.125 - 0.125 / 4
  cr_expect(c.Next(1, 1, 1, &out) && out == 1.0);
  // error -1: raw -0.5 + 1.09375
  cr_expect(c.Next(1, 0, 1, &out) && std::fabs(out - 0.59375) < 1e-12, "%f", out);
  cr_expect(!c.Next(INFINITY, 0, 1, &out) && out == -1.0);
  cr_expect(c.Next(0, 1, 1, &out) && out == 0.5);  // afresh
  cr_expect(!c.Next(NAN, 0, 1, &out) && out == -1.0);
}

// Whatever a burst takes and however late timers are, it ends at one percent of all CPUs.
Test(scavenger, pace_converges) {
  struct {
    int procs;
    int64_t worked, late;
  } cases[] = {{1, kMs, 0}, {2, kMs, kMs}, {8, 3 * kMs, 0}, {64, kMs, 100'000}, {2, 10'000, 0}};
  for (const auto& c : cases) {
    ScavengePace pace;
    cr_expect(pace.SleepAfter(kMs) == 1000 * kMs);
    double work = 0, all = 0;
    for (int i = 0; i < 20000; i++) {
      int64_t worked = Max(static_cast<size_t>(c.worked), static_cast<size_t>(kMs));
      int64_t slept = pace.SleepAfter(c.worked) + c.late;
      pace.Slept(slept, c.worked, c.procs);
      if (i < 10000) continue;
      work += static_cast<double>(worked);
      all += static_cast<double>(slept + worked) * c.procs;
    }
    double fraction = work / all;
    cr_expect(fraction > 0.0095 && fraction < 0.0105, "%d CPUs: %f", c.procs, fraction);
    cr_expect(!pace.TakeReset());
  }
}

Test(scavenger, pace_after_a_failure) {
  ScavengePace pace;
  for (int i = 0; i < 100; i++) pace.Slept(pace.SleepAfter(kMs), kMs, 2);
  double settled = pace.ratio();
  cr_expect(settled != 0.001);
  pace.Slept(10 * kMs, kMs, 0);  // divides by zero
  cr_expect(pace.ratio() == 0.001);
  cr_expect(pace.TakeReset() && !pace.TakeReset());
  // Five seconds without the controller; the sleep that ends them included.
  for (int i = 0; i < 5; i++) {
    pace.Slept(998 * kMs, kMs, 2);
    cr_expect(pace.ratio() == 0.001);
  }
  pace.Slept(998 * kMs, kMs, 2);  // 4.995 s have passed
  cr_expect(pace.ratio() == 0.001);
  pace.Slept(998 * kMs, kMs, 2);
  cr_expect(pace.ratio() != 0.001);
}
