// SPDX-License-Identifier: Apache-2.0
// The pacer, formula by formula, against numbers computed by hand.

#include "gc/pacer.h"

#include <criterion/criterion.h>

#include <cmath>

using namespace undergo;
using namespace undergo::gc;

namespace {

constexpr int64_t kSecond = 1'000'000'000;

constexpr uint64_t MiB(double n) { return static_cast<uint64_t>(n * static_cast<double>(kMiB)); }

bool Near(double a, double b) { return std::fabs(a - b) <= 1e-9 * std::fabs(b); }

struct Cycle {
  uint64_t triggered = 0;
  uint64_t live_at_end = 0;
  uint64_t marked = 0;
  ScanWork work = {};
  uint64_t globals = 0;
  int64_t assist_ns = 0;
  int64_t wait_ns = 0;
  int64_t idle_ns = 0;
  int64_t cpu_ns = 0;
  int procs = 1;
};

// All of the heap is marked, and nothing is allocated meanwhile.
Cycle AllLive(uint64_t marked, uint64_t stack = 0, uint64_t globals = 0) {
  return {.triggered = marked,
          .live_at_end = marked,
          .marked = marked,
          .work = {marked, stack, globals},
          .globals = globals};
}

bool Run(Pacer& p, const Cycle& c) {
  p.StartCycle({.now = 5 * kSecond,
                .heap_live = c.triggered,
                .heap_scan = c.triggered,
                .max_stack = c.work.stack,
                .globals = c.globals,
                .procs = c.procs},
               {});
  return p.EndCycle({.now = 6 * kSecond,
                     .heap_live = c.live_at_end,
                     .marked = c.marked,
                     .work = c.work,
                     .globals = c.globals,
                     .assist_ns = c.assist_ns,
                     .wait_ns = c.wait_ns,
                     .idle_ns = c.idle_ns,
                     .cpu_ns = c.cpu_ns,
                     .procs = c.procs},
                    {});
}

// 40 MiB live and scanned; 10 MiB were allocated while the cycle ran. Next goal: 80 MiB.
Pacer After40() {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  Run(p,
      {.triggered = MiB(60), .live_at_end = MiB(70), .marked = MiB(40), .work = {MiB(40), 0, 0}});
  p.Commit(MiB(40), true);
  return p;
}

}  // namespace

Test(pacer, first_goal_is_the_minimum_heap) {
  struct {
    int32_t percent;
    uint64_t goal, trigger;
  } cases[] = {
      {100, MiB(4), 4194304 / 64 * 61},
      {50, MiB(2), 2097152 / 64 * 61},
      {200, MiB(8), 8388608 / 64 * 61},  // 61/64 of 8 is more than 8 - 4
      {0, 0, 0},
  };
  for (const auto& c : cases) {
    Pacer p;
    p.Init(c.percent, kNoMemoryLimit);
    cr_expect(p.Goal({}) == c.goal, "GOGC=%d: goal %lu", c.percent, p.Goal({}));
    cr_expect(p.Trigger({}) == c.trigger, "GOGC=%d: trigger %lu", c.percent, p.Trigger({}));
  }
  Pacer off;
  off.Init(-7, kNoMemoryLimit);
  cr_expect(off.percent() == kGcOff);
  cr_expect(off.Goal({}) == kNoGoal);
  cr_expect(off.Trigger({}) > uint64_t{1} << 62);
}

Test(pacer, goal_counts_the_globals_that_the_cycle_found) {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  p.StartCycle({.heap_live = MiB(10), .heap_scan = MiB(10), .globals = MiB(1)}, {});
  p.EndCycle({.now = kSecond,
              .heap_live = MiB(10),
              .marked = MiB(10),
              .work = {MiB(10), 0, MiB(150)},
              .globals = MiB(100)},
             {});
  p.Commit(MiB(10), true);
  cr_expect(p.Goal({}) == MiB(120));
  cr_expect(p.ExpectedWork() == MiB(110));
}

Test(pacer, percent_goal_counts_stacks_and_globals_in_the_base) {
  struct {
    int32_t percent;
    uint64_t marked, stack, globals, goal;
  } cases[] = {
      {100, MiB(10), MiB(1), MiB(2), MiB(23)},
      {50, MiB(10), MiB(1), MiB(2), MiB(16.5)},
      {200, MiB(10), MiB(1), MiB(2), MiB(36)},
      {0, MiB(10), MiB(1), MiB(2), MiB(10)},
      {100, MiB(1), 0, MiB(9), MiB(11)},
      {100, MiB(1), 0, 0, MiB(4)},
      {1, MiB(300), 0, 0, MiB(303)},
      {INT32_MAX, uint64_t{1} << 46, 0, 0, kNoGoal},  // saturates
  };
  for (const auto& c : cases) {
    Pacer p;
    p.Init(c.percent, kNoMemoryLimit);
    Run(p, AllLive(c.marked, c.stack, c.globals));
    p.Commit(c.marked, true);
    cr_expect(p.Goal({}) == c.goal, "GOGC=%d: %lu, wanted %lu", c.percent, p.Goal({}), c.goal);
    cr_expect(p.heap_marked() == c.marked);
    cr_expect(p.ExpectedWork() == c.marked + c.stack + c.globals);
  }
}

Test(pacer, after_a_cycle_without_garbage_the_goal_lies_further_away) {
  struct {
    int32_t percent;
    uint64_t marked, garbage, goal;
  } cases[] = {
      {100, MiB(63), 0, 3 * MiB(63) + MiB(16)},
      {100, MiB(63), MiB(1), 3 * MiB(63) + MiB(16)},  // one part in 64
      {100, MiB(63), MiB(1.1), MiB(126)},
      {100, MiB(1), 0, MiB(4) + MiB(1) + MiB(16)},
      {100, MiB(512), 0, MiB(1024) + MiB(256) + MiB(16)},   // no more than that,
      {100, MiB(2048), 0, MiB(4096) + MiB(512) + MiB(16)},  // or a quarter
      {200, MiB(64), 0, MiB(192) + MiB(64) + MiB(16)},
      {99, MiB(100), 0, MiB(199)},
      {0, MiB(64), 0, MiB(64)},
      {-1, MiB(64), 0, kNoGoal},
      {INT32_MAX, uint64_t{1} << 46, 0, kNoGoal},
  };
  for (const auto& c : cases) {
    Pacer p;
    p.Init(c.percent, kNoMemoryLimit);
    Run(p, AllLive(c.marked));
    p.NoteGarbage(c.garbage);
    p.Commit(c.marked, true);
    cr_expect(p.Goal({}) == c.goal, "GOGC=%d: %lu, wanted %lu", c.percent, p.Goal({}), c.goal);
    // The next cycle that finds garbage ends it.
    p.NoteGarbage(c.marked / 4);
    p.Commit(c.marked, true);
    cr_expect(p.Goal({}) <= c.goal);
    if (c.percent == 100) cr_expect(p.Goal({}) == Max(2 * c.marked, MiB(4)));
  }
}

// 40 MiB live, marked in 10 ms, and no garbage in `cycles` cycles. `during` is allocated in each.
Pacer Quiet40(int cycles, uint64_t during = 0) {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  for (int i = 0; i < cycles; i++) {
    Cycle c = AllLive(MiB(40));
    c.live_at_end += during;
    c.cpu_ns = kSecond / 100;
    Run(p, c);
    p.NoteGarbage(0);
    p.Commit(MiB(40), true);
  }
  cr_assert(p.Goal({}) == MiB(3 * 40 + 16));
  return p;
}

Test(pacer, a_cycle_that_would_be_dear_is_put_off_after_one_without_garbage) {
  constexpr uint64_t kPlenty = MiB(1000);
  Pacer fresh;
  fresh.Init(100, kNoMemoryLimit);
  cr_expect(!fresh.PutOff(MiB(4), 0, kPlenty));
  // At 120 MiB three times of 10 ms, a fifth of 0.15 s.
  cr_expect(!Quiet40(1).PutOff(MiB(120), 3 * kSecond / 20, kPlenty));
  cr_expect(Quiet40(1).PutOff(MiB(120), 3 * kSecond / 20 - 1, kPlenty));
  // After two cycles a fiftieth of 1.5 s.
  Pacer p = Quiet40(2);
  cr_expect(!p.PutOff(MiB(120), 3 * kSecond / 2, kPlenty));
  cr_expect(p.PutOff(MiB(120), 3 * kSecond / 2 - 1, kPlenty));
  cr_expect(p.Goal({}) == MiB(136 + 16) && p.Trigger({}) > MiB(120));
  cr_expect(p.ExpectedWork() == MiB(136 + 16));
  int steps = 1;
  for (; p.PutOff(p.Trigger({}), 0, kPlenty); steps++) cr_assert(steps < 20);
  cr_expect(steps == 15 && p.Goal({}) == MiB(2 * 40 + 272 + 16), "%d: %lu", steps, p.Goal({}));
  // What is allocated during the cycle comes on top: it begins where slow programs begin it.
  for (double during : {2, 4, 40}) {
    Pacer fast = Quiet40(2, MiB(during));
    while (fast.PutOff(fast.Trigger({}), 0, kPlenty)) {
    }
    uint64_t latest = MiB(2 * 40 + 272 + 16), trigger = fast.Trigger({});
    cr_expect(trigger <= latest && trigger > latest - MiB(16), "%.0f: %lu", during, trigger);
    cr_expect(fast.Goal({}) <= latest + MiB(288) / 45 * 19, "%.0f: %lu", during, fast.Goal({}));
  }
  // Where memory is scarce.
  Pacer q = Quiet40(2), none = Quiet40(2);
  while (q.PutOff(q.Trigger({}), 0, MiB(60))) {
  }
  cr_expect(q.Goal({}) == MiB(2 * 40 + 60 + 16));
  cr_expect(!none.PutOff(MiB(120), 0, MiB(40)));
  // Garbage ends it.
  p.NoteGarbage(MiB(1));
  p.Commit(MiB(40), true);
  cr_expect(p.Goal({}) == MiB(80) && !p.PutOff(MiB(80), 0, kPlenty));
}

Test(pacer, no_cycle_is_put_off_by_who_wants_less_memory) {
  for (int32_t percent : {99, 0, -1}) {
    Pacer p = Quiet40(2);
    p.SetPercent(percent);
    p.Commit(MiB(40), true);
    cr_expect(!p.PutOff(MiB(120), 0, MiB(1000)), "GOGC=%d", percent);
  }
  Pacer p = Quiet40(2);
  p.SetMemoryLimit(static_cast<int64_t>(MiB(10000)));
  cr_expect(!p.PutOff(MiB(120), 0, MiB(1000)));
}

Test(pacer, with_a_memory_limit_no_goal_lies_further_away) {
  Pacer p = After40();
  MemorySizes sizes = {.mapped_ready = MiB(40), .heap_free = 0, .heap_alloc = MiB(40)};
  p.NoteGarbage(0);
  p.SetMemoryLimit(static_cast<int64_t>(MiB(1000)));
  p.Commit(MiB(40), true);
  cr_expect(p.Goal(sizes) == MiB(80) && not(p.GoalIsLimit(sizes)));
  p.SetMemoryLimit(static_cast<int64_t>(MiB(60)));
  cr_expect(p.Goal(sizes) < MiB(60) && p.GoalIsLimit(sizes));
  p.SetMemoryLimit(kNoMemoryLimit);
  p.Commit(MiB(40), true);
  cr_expect(p.Goal(sizes) == MiB(80 + 40 + 16) && not(p.GoalIsLimit(sizes)));
}

Test(pacer, trigger_stands_before_the_goal_by_the_runway) {
  // (70 - 60) * 0.25 / (40 * 0.75) = 1/12; runway = 1/12 * 3 * 40 MiB = 10 MiB.
  Pacer p = After40();
  cr_expect(Near(p.cons_mark(), 1.0 / 12));
  cr_expect(p.Goal({}) == MiB(80));
  cr_expect(p.Trigger({}) == MiB(70), "%lu", p.Trigger({}));
  // Stacks and globals are work as well: 6 * 0.25 / (48 * 0.75) = 1/24, times 3 * 48 MiB = 6 MiB;
  // the goal is 40 + 40 + 8 MiB.
  Pacer q;
  q.Init(100, kNoMemoryLimit);
  Run(q, {.triggered = MiB(60),
          .live_at_end = MiB(66),
          .marked = MiB(40),
          .work = {MiB(40), MiB(2), MiB(6)},
          .globals = MiB(6)});
  q.Commit(MiB(40), true);
  double off = static_cast<double>(q.Trigger({})) - static_cast<double>(MiB(82));
  cr_expect(q.Goal({}) == MiB(88) && std::fabs(off) < 64, "%lu", q.Trigger({}));
}

Test(pacer, trigger_bounds) {
  struct {
    uint64_t marked;
    double allocated_mib;  // in a cycle that scans all that is marked
    uint64_t trigger;
  } cases[] = {
      {MiB(64), 1000, MiB(64 + 45)},      // runway beyond the goal
      {MiB(64), 100, MiB(64 + 45)},       // runway over 30 %: the lower bound
      {MiB(64), 0.0001, MiB(64 + 61)},    // almost none: the upper bound
      {MiB(640), 0.0001, MiB(1280 - 4)},  // big: the goal less the minimum heap
      {MiB(64), 10, MiB(128 - 10)},
  };
  for (const auto& c : cases) {
    Pacer p;
    p.Init(100, kNoMemoryLimit);
    Run(p, {.triggered = MiB(1000),
            .live_at_end = MiB(1000 + c.allocated_mib),
            .marked = c.marked,
            .work = {c.marked, 0, 0}});
    p.Commit(c.marked, true);
    double off = static_cast<double>(p.Trigger({})) - static_cast<double>(c.trigger);
    cr_expect(std::fabs(off) < 4096, "marked %lu: trigger %lu", c.marked, p.Trigger({}));
    cr_expect(p.Trigger({}) <= p.Goal({}));
  }
}

Test(pacer, sweep_keeps_the_trigger_away) {
  Pacer p;
  p.Init(0, kNoMemoryLimit);
  Run(p,
      {.triggered = MiB(10), .live_at_end = MiB(10), .marked = MiB(10), .work = {MiB(10), 0, 0}});
  p.Commit(MiB(10), true);
  cr_expect(p.Trigger({}) == MiB(10));  // for ever
  p.Commit(MiB(10), false);
  cr_expect(p.Goal({}) == MiB(11));
  cr_expect(p.Trigger({}) == MiB(11));
  p.Commit(MiB(12), false);
  cr_expect(p.Trigger({}) == MiB(13));
  // The memory limit is not moved up by it, unless it asks for nothing that GOGC does not.
  MemorySizes sizes = {.mapped_ready = MiB(20), .heap_free = 0, .heap_alloc = MiB(20)};
  p.SetMemoryLimit(static_cast<int64_t>(MiB(8)));
  cr_expect(p.Goal(sizes) == MiB(13));
  p.SetPercent(100);
  p.Commit(MiB(12), false);
  HeapTarget t = p.Target(sizes);
  cr_expect(t.goal == MiB(10) && t.trigger == MiB(10));
}

Test(pacer, goal_lies_beyond_the_start_of_a_cycle) {
  Pacer p = After40();
  p.StartCycle({.now = 0, .heap_live = MiB(90), .heap_scan = MiB(90)}, {});
  cr_expect(p.triggered() == MiB(90));
  cr_expect(p.Goal({}) == MiB(90) + 65536);
  p.EndCycle({.now = 1, .heap_live = MiB(91), .marked = MiB(40), .work = {MiB(40), 0, 0}}, {});
  cr_expect(p.last_goal() == MiB(90) + 65536);
  cr_expect(p.triggered() == kNoGoal);
}

Test(pacer, memory_limit_goal) {
  struct {
    uint64_t limit, mapped, free, alloc, marked, goal;
  } cases[] = {
      // 100 - (50 - 10 - 30) = 90 MiB = 94371840 bytes, less 3 * 943718.
      {MiB(100), MiB(50), MiB(10), MiB(30), 0, 94371840 - 2831154},
      // 10 over the limit count again: 100 - 30 - 10 = 60 MiB = 62914560, less 3 * 629145.
      {MiB(100), MiB(110), 0, MiB(80), 0, 62914560 - 1887435},
      // 20 MiB: 3 % are less than 1 MiB.
      {MiB(30), MiB(30), 0, MiB(20), 0, MiB(19)},
      // Less than twice the headroom is left.
      {MiB(4), MiB(3.5), 0, MiB(1), 0, MiB(1)},
      {MiB(4), MiB(4), 0, MiB(0.5), 0, MiB(1)},
      // Not below the live heap.
      {MiB(100), MiB(110), 0, MiB(80), MiB(70), MiB(70)},
      // Without the heap it is too much already.
      {MiB(100), MiB(150), 0, MiB(50), MiB(33), MiB(33)},
      {MiB(100), MiB(101), 0, MiB(1), MiB(1), MiB(1)},
      // Sizes that do not add up count as no other memory.
      {MiB(100), MiB(50), MiB(30), MiB(30), 0, 104857600 - 3145728},
  };
  for (const auto& c : cases) {
    Pacer p;
    p.Init(-1, static_cast<int64_t>(c.limit));
    Run(p, {.triggered = c.marked, .live_at_end = c.marked, .marked = c.marked});
    p.Commit(c.marked, true);
    MemorySizes sizes = {c.mapped, c.free, c.alloc};
    cr_expect(p.Goal(sizes) == c.goal, "limit %lu mapped %lu: %lu, wanted %lu", c.limit, c.mapped,
              p.Goal(sizes), c.goal);
    cr_expect(p.Trigger(sizes) <= p.Goal(sizes));
    cr_expect(p.Trigger(sizes) >= c.marked);
  }
}

Test(pacer, lower_one_of_two_goals_wins) {
  Pacer p = After40();
  p.SetMemoryLimit(static_cast<int64_t>(MiB(1000)));
  MemorySizes sizes = {.mapped_ready = MiB(60), .heap_free = MiB(10), .heap_alloc = MiB(40)};
  cr_expect(p.Goal(sizes) == MiB(80));
  p.SetMemoryLimit(static_cast<int64_t>(MiB(70)));
  cr_expect(p.Goal(sizes) == MiB(60) - MiB(60) / 100 * 3, "%lu", p.Goal(sizes));
  p.SetMemoryLimit(kNoMemoryLimit);
  p.SetPercent(200);
  p.Commit(MiB(40), true);
  cr_expect(p.Goal(sizes) == MiB(120));
}

Test(pacer, workers) {
  struct {
    int procs, dedicated;
    double fractional;
  } cases[] = {{1, 0, 0.25},    {2, 0, 0.25}, {3, 0, 0.25}, {4, 1, 0},  {5, 1, 0},
               {6, 1, 1. / 12}, {7, 2, 0},    {8, 2, 0},    {64, 16, 0}};
  for (const auto& c : cases) {
    Pacer p;
    p.Init(100, kNoMemoryLimit);
    p.StartCycle({.procs = c.procs}, {});
    WorkerPlan w = p.workers();
    cr_expect(w.dedicated == c.dedicated && std::fabs(w.fractional - c.fractional) < 1e-12,
              "%d CPUs: %d + %f", c.procs, w.dedicated, w.fractional);
    cr_expect(w.idle_max == c.procs - c.dedicated);
    p.StartCycle({.procs = c.procs, .timed = true}, {});
    cr_expect(p.workers().idle_max == (c.dedicated > 0 ? 0 : 1));
    p.StartCycle({.procs = c.procs, .stop_the_world = true}, {});
    cr_expect(p.workers().dedicated == c.procs && p.workers().fractional == 0);
    cr_expect(p.workers().idle_max == 0);
  }
}

Test(pacer, fractional_worker) {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  p.StartCycle({.procs = 1}, {});
  cr_expect(p.FractionalMayRun(1, 0));
  cr_expect(p.FractionalMayRun(25, 100));
  cr_expect(!p.FractionalMayRun(26, 100));
  cr_expect(!p.FractionalMustStop(30, 100));
  cr_expect(p.FractionalMustStop(31, 100));
  cr_expect(p.FractionalMustStop(0, 0));
  p.StartCycle({.procs = 4}, {});
  cr_expect(!p.FractionalMayRun(0, 100));
}

Test(pacer, assist_ratio) {
  struct {
    double live, work, heap_scan;
    double left, room;
  } cases[] = {
      {70, 0, 70, 40, 10},      // 40 expected, 80 - 70
      {75, 20, 70, 20, 5},      // on time: the ratio stays
      {72, 36, 70, 4, 8},       // early
      {75, 50, 70, 20, 12.5},   // more than expected: goal (80-70)/40*70+70 = 87.5, all of 70
      {75, 50, 1000, 950, 85},  // the goal is not moved beyond (1 + GOGC) * 80 = 160
      {85, 20, 70, 50, 3},      // beyond the goal: 1.1 * 80 = 88
  };
  for (const auto& c : cases) {
    Pacer p = After40();
    p.StartCycle({.now = 0, .heap_live = MiB(70), .heap_scan = MiB(c.heap_scan)}, {});
    p.Revise(MiB(c.live), {MiB(c.work), 0, 0}, {});
    double ratio = c.left / c.room;
    cr_expect(std::fabs(p.AssistWorkPerByte() / ratio - 1) < 1e-6, "live %f work %f: %f, wanted %f",
              c.live, c.work, p.AssistWorkPerByte(), ratio);
    cr_expect(Near(p.AssistBytesPerWork() * p.AssistWorkPerByte(), 1));
  }
}

Test(pacer, assist_ratio_at_its_limits) {
  Pacer p = After40();
  p.StartCycle({.now = 0, .heap_live = MiB(70), .heap_scan = MiB(70)}, {});
  p.Revise(MiB(70), {MiB(40), 0, 0}, {});
  cr_expect(Near(p.AssistWorkPerByte(), 1000.0 / static_cast<double>(MiB(10))));
  p.Revise(MiB(95), {MiB(20), 0, 0}, {});
  cr_expect(Near(p.AssistWorkPerByte(), static_cast<double>(MiB(50))));
  // All three kinds of work count.
  p.Revise(MiB(75), {MiB(10), MiB(4), MiB(6)}, {});
  cr_expect(Near(p.AssistWorkPerByte(), 4));
  // Forced while GOGC=off: no goal, no assists.
  Pacer off;
  off.Init(-1, kNoMemoryLimit);
  off.StartCycle({.now = 0, .heap_live = MiB(70), .heap_scan = MiB(70)}, {});
  off.Revise(MiB(71), {MiB(30), 0, 0}, {});
  cr_expect(off.AssistWorkPerByte() < 1e-6, "%g", off.AssistWorkPerByte());
  // GOGC=off with a limit: the goal may move as if GOGC were 100000. Limit 100 MiB, nothing but
  // heap: goal 101711872 bytes; expected 1 MiB of roots, 2 MiB done, 201 MiB at most.
  off.Init(-1, static_cast<int64_t>(MiB(100)));
  MemorySizes sizes = {.mapped_ready = MiB(96), .heap_free = 0, .heap_alloc = MiB(96)};
  uint64_t goal = 104857600 - 1048576 * 3;
  cr_expect(off.Goal(sizes) == goal);
  off.StartCycle({.now = 0, .heap_live = MiB(96), .heap_scan = MiB(200), .globals = MiB(1)}, sizes);
  off.Revise(MiB(96), {0, 0, MiB(2)}, sizes);
  double room = static_cast<double>(goal - MiB(96)) * 201;
  cr_expect(std::fabs(off.AssistWorkPerByte() * room / static_cast<double>(MiB(199)) - 1) < 1e-6);
  // The first cycle expects nothing but what the roots are; more work moves the goal at once.
  Pacer first;
  first.Init(100, kNoMemoryLimit);
  first.StartCycle({.now = 0, .heap_live = MiB(3.5), .heap_scan = MiB(3.5)}, {});
  first.Revise(MiB(3.5), {MiB(1), 0, 0}, {});
  cr_expect(std::fabs(first.AssistWorkPerByte() - 2.5 / 4.5) < 1e-6, "%g",
            first.AssistWorkPerByte());
}

Test(pacer, debt_and_credit) {
  Pacer p = After40();
  p.StartCycle({.now = 0, .heap_live = MiB(70), .heap_scan = MiB(70)}, {});  // ratio 4
  AssistDebt d = p.DebtFor(static_cast<int64_t>(MiB(1)));
  cr_expect(d.work == static_cast<int64_t>(MiB(4)) && d.bytes == static_cast<int64_t>(MiB(1)));
  d = p.DebtFor(1000);
  cr_expect(d.work == 65536 && d.bytes == 16384);
  cr_expect(p.CreditFor(65536) == 16385);
  cr_expect(p.CreditFor(0) == 1);
}

// 4 CPUs for 1 s; 0.8 s assists, 0.4 s idle: 0.45 and 0.1.
const Cycle kFourCpus = {.triggered = MiB(60),
                         .live_at_end = MiB(82),
                         .marked = MiB(40),
                         .work = {MiB(30), MiB(4), MiB(6)},
                         .globals = MiB(6),
                         .assist_ns = 800'000'000,
                         .idle_ns = 400'000'000,
                         .procs = 4};

Test(pacer, cons_mark_with_assists_and_idle_workers) {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  cr_expect(Run(p, kFourCpus));
  cr_expect(Near(p.last_utilization(), 0.45));
  cr_expect(Near(p.cons_mark(), 22 * 0.55 / (40 * 0.55)), "%f", p.cons_mark());
}

Test(pacer, time_that_assists_waited_is_not_the_programs) {
  // As above, but half of the program's 0.55 went by in waits, and then all of it.
  for (double waited : {0.275, 0.55, 2.0}) {
    Pacer p;
    p.Init(100, kNoMemoryLimit);
    Cycle c = kFourCpus;
    c.wait_ns = static_cast<int64_t>(waited * 4e9);
    Run(p, c);
    double running = waited < 0.5 ? 0.55 - waited : 0.01;
    cr_expect(std::fabs(p.cons_mark() - 22 * 0.55 / (40 * running)) < 1e-6, "%f", p.cons_mark());
  }
}

Test(pacer, cons_mark_is_the_largest_of_five) {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  // 30 MiB allocated and scanned in a cycle without assists: 1/3.
  auto run = [&](double allocated) {
    return Run(p, {.triggered = MiB(100),
                   .live_at_end = MiB(100 + allocated),
                   .marked = MiB(30),
                   .work = {MiB(30), 0, 0}});
  };
  run(30);
  cr_expect(Near(p.cons_mark(), 1.0 / 3));
  for (int i = 0; i < 4; i++) {
    run(3);
    cr_expect(Near(p.cons_mark(), 1.0 / 3), "after %d", i);
  }
  run(3);
  cr_expect(Near(p.cons_mark(), 1.0 / 30));
  run(6);
  cr_expect(Near(p.cons_mark(), 1.0 / 15));
}

Test(pacer, cycles_that_tell_nothing) {
  Pacer p = After40();
  double before = p.cons_mark();
  // The program freed more than it allocated; or nothing was scanned.
  cr_expect(!Run(
      p,
      {.triggered = MiB(60), .live_at_end = MiB(50), .marked = MiB(20), .work = {MiB(20), 0, 0}}));
  cr_expect(p.cons_mark() == before && p.heap_marked() == MiB(20));
  cr_expect(!Run(p, {.triggered = MiB(60), .live_at_end = MiB(70), .marked = MiB(20)}));
  cr_expect(p.cons_mark() == before);
  // More assist time than there was: still a number.
  cr_expect(Run(p, {.triggered = MiB(60),
                    .live_at_end = MiB(70),
                    .marked = MiB(20),
                    .work = {MiB(20), 0, 0},
                    .assist_ns = 5 * kSecond}));
  p.Commit(MiB(20), true);
  cr_expect(p.cons_mark() > 0 && p.cons_mark() < 1000);
  cr_expect(p.Trigger({}) <= p.Goal({}));
}

Test(pacer, clock) {
  Pacer p;
  p.Init(100, kNoMemoryLimit);
  cr_expect(!p.TimedGcDue(1000 * kSecond, 0));
  cr_expect(!p.TimedGcDue(1120 * kSecond, 1000 * kSecond));
  cr_expect(p.TimedGcDue(1120 * kSecond + 1, 1000 * kSecond));
  p.SetPercent(-1);
  cr_expect(!p.TimedGcDue(5000 * kSecond, 1000 * kSecond));
}

Test(pacer, sweep_is_spread_over_the_allocation) {
  SweepPacer s;
  // 1000 pages in 11 - 1 MiB.
  s.Pace(MiB(21), MiB(10), 1200, 200);
  cr_expect(s.PagesOwed(MiB(10), 0, 200, 0) == 0);
  cr_expect(s.PagesOwed(MiB(15), 0, 200, 0) == 500);
  cr_expect(s.PagesOwed(MiB(15), 0, 450, 0) == 250);
  cr_expect(s.PagesOwed(MiB(15), 0, 450, 50) == 200);
  cr_expect(s.PagesOwed(MiB(14), MiB(1), 450, 50) == 200);
  cr_expect(s.PagesOwed(MiB(15), 0, 900, 0) == 0);
  cr_expect(s.PagesOwed(MiB(5), 0, 200, 0) == 0);  // the program freed
  // No room left: all within 8 KiB.
  s.Pace(MiB(10.5), MiB(10), 1000, 0);
  cr_expect(s.PagesOwed(MiB(10), 4096, 0, 0) == 500);
  s.Done();
  cr_expect(s.PagesOwed(MiB(100), 0, 0, 0) == 0);
  s.Pace(MiB(21), MiB(10), 100, 100);
  cr_expect(s.PagesOwed(MiB(20), 0, 100, 0) == 0);
}
