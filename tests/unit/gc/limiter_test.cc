// SPDX-License-Identifier: Apache-2.0
// The CPU limiter: what fills the bucket, what drains it, when it limits.

#include "gc/limiter.h"

#include <criterion/criterion.h>

#include <thread>
#include <vector>

using namespace undergo::gc;

namespace {
constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;
}  // namespace

Test(limiter, program_alone_leaves_it_empty) {
  CpuLimiter l;
  l.SetProcs(2, 0);
  cr_expect(l.capacity() == 2 * kSecond);
  for (int64_t t = 10 * kMs; t <= 5 * kSecond; t += 10 * kMs) l.Update(t);
  cr_expect(l.fill() == 0 && !l.Limiting());
}

Test(limiter, background_marking_alone_never_fills_it) {
  CpuLimiter l;
  l.SetProcs(4, 0);
  l.StartTransition(true, 0, 1);
  l.FinishTransition(1 * kMs);  // the stop: 4 ms
  cr_expect(l.fill() == 4 * kMs);
  // 10 ms: 10 ms of marking against 30 ms of the program.
  l.Update(1 * kMs + 100'000);
  cr_expect(l.fill() == 4 * kMs - 200'000, "%ld", l.fill());
  l.Update(1 * kSecond);
  cr_expect(l.fill() == 0);
}

Test(limiter, assists_fill_it) {
  CpuLimiter l;
  l.SetProcs(1, 0);
  l.StartTransition(true, 0, 7);
  l.FinishTransition(0);
  // 75 % assists and 25 % marking: all of the time. Full after a second.
  int64_t t = 0;
  while (t < 990 * kMs) {
    t += 10 * kMs;
    l.AddAssist(7'500'000);
    l.Update(t);
    cr_expect(l.fill() == t && !l.Limiting());
  }
  t += 20 * kMs;
  l.AddAssist(15'000'000);
  l.Update(t);
  cr_expect(l.Limiting() && l.fill() == kSecond);
  cr_expect(l.last_limited_cycle() == 7);
  // Without assists it drains by 50 % of the time, and limits no more at once.
  l.Update(t + 10 * kMs);
  cr_expect(!l.Limiting() && l.fill() == kSecond - 5 * kMs, "%ld", l.fill());
}

Test(limiter, exactly_half_changes_nothing) {
  CpuLimiter l;
  l.SetProcs(1, 0);
  l.AddAssist(500 * kMs);
  l.Update(500 * kMs);
  cr_expect(l.fill() == 500 * kMs);
  l.AddAssist(50 * kMs);
  l.Update(600 * kMs);
  cr_expect(l.fill() == 500 * kMs);
}

Test(limiter, idle_time_is_nobodys) {
  CpuLimiter l;
  l.SetProcs(4, 0);
  // 400 ms in all: 300 idle, 60 assists, 40 the program.
  l.AddIdle(300 * kMs);
  l.AddAssist(60 * kMs);
  l.Update(100 * kMs);
  cr_expect(l.fill() == 20 * kMs, "%ld", l.fill());
}

Test(limiter, stops_count_whole) {
  CpuLimiter l;
  l.SetProcs(8, 0);
  l.StartTransition(true, 10 * kMs, 1);
  l.Update(11 * kMs);  // no effect in between
  l.FinishTransition(12 * kMs);
  cr_expect(l.fill() == 16 * kMs);
}

Test(limiter, clock_and_windows) {
  CpuLimiter l;
  cr_expect(!l.Limiting());  // before it was set up
  l.SetProcs(1, 100 * kMs);
  cr_expect(!l.NeedsUpdate(110 * kMs));
  cr_expect(l.NeedsUpdate(110 * kMs + 1));
  l.AddAssist(kMs);
  l.Update(50 * kMs);  // the past
  cr_expect(l.fill() == 0);
  l.Update(101 * kMs);  // what was added is still there
  cr_expect(l.fill() == kMs);
}

Test(limiter, fewer_cpus_make_it_full) {
  CpuLimiter l;
  l.SetProcs(4, 0);
  l.AddAssist(5 * kSecond / 2);
  l.Update(kSecond / 2);
  cr_expect(l.fill() == 3 * kSecond);
  l.SetProcs(2, kSecond / 2);
  cr_expect(l.Limiting() && l.fill() == 2 * kSecond);
  l.SetProcs(4, kSecond / 2);
  cr_expect(!l.Limiting());
}

// Every nanosecond is counted once, whoever counts it.
Test(limiter, many_threads) {
  CpuLimiter l;
  l.SetProcs(1000, 0);  // too big to fill
  std::vector<std::thread> threads;
  constexpr int64_t kSteps = 20000;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([&l, i] {
      for (int64_t t = 1; t <= kSteps; t++) {
        l.AddAssist(1000);
        if (t % 4 == i) l.Update(t);
      }
    });
  }
  for (auto& t : threads) t.join();
  l.Update(kSteps + 1);
  // 80e6 ns of assists, twice; less the 1000 CPUs' 20001 ns. Never empty in between? Then equal.
  int64_t wanted = 2 * 4 * kSteps * 1000 - 1000 * (kSteps + 1);
  cr_expect(l.fill() >= wanted && l.fill() <= 2 * 4 * kSteps * 1000, "%ld, wanted %ld", l.fill(),
            wanted);
}
