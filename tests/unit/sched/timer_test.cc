// SPDX-License-Identifier: Apache-2.0
// Heaps of deadlines against a plain list.

#include "sched/timer.h"

#include <criterion/criterion.h>

#include <vector>

#include "sched/sched.h"

using namespace undergo;
using namespace undergo::sched;

namespace {

G* Armed(uint64_t when) {
  auto* g = new G{};
  g->timer.when = when;
  g->wake = static_cast<uint32_t>(Wake::kArmed);
  return g;
}

}  // namespace

Test(timer, ends_waits_in_order_of_their_deadlines) {
  TimerHeap heap;
  for (uint64_t when : {50, 10, 40, 20, 30, 10}) cr_assert(heap.Add(Armed(when)));
  cr_expect(heap.size() == 6 && heap.Nearest() == 10);
  GQueue ready;
  heap.Run(9, &ready);
  cr_expect(ready.head == nullptr);
  heap.Run(30, &ready);
  uint64_t last = 0;
  uint32_t n = 0;
  while (G* g = ready.Pop()) {
    cr_expect(g->timer.when >= last && g->timer.index == 0);
    cr_expect(g->wake == static_cast<uint32_t>(Wake::kTimeout));
    last = g->timer.when;
    ++n;
  }
  cr_expect(n == 4 && heap.Nearest() == 40);
}

Test(timer, a_wait_that_has_ended_is_only_taken_out) {
  TimerHeap heap;
  G* g = Armed(5);
  cr_assert(heap.Add(g));
  cr_expect(ClaimWake(g, Wake::kReady) && !ClaimWake(g, Wake::kTimeout));
  GQueue ready;
  heap.Run(100, &ready);
  cr_expect(ready.head == nullptr && heap.size() == 0 && g->timer.index == 0);
  cr_expect(g->wake == static_cast<uint32_t>(Wake::kReady));
}

Test(timer, random_adds_and_removes_agree_with_a_list) {
  TimerHeap heap;
  std::vector<G*> list;
  uint64_t state = 88172645463325252;
  auto random = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  uint64_t now = 0;
  for (int round = 0; round < 20000; ++round) {
    uint64_t what = random() % 10;
    if (what < 6) {
      G* g = Armed(now + 1 + random() % 1000);
      cr_assert(heap.Add(g));
      list.push_back(g);
    } else if (what < 8 && !list.empty()) {
      size_t i = random() % list.size();
      heap.Remove(list[i]);
      heap.Remove(list[i]);  // a second time does nothing
      cr_assert(list[i]->timer.index == 0);
      delete list[i];
      list[i] = list.back();
      list.pop_back();
    } else {
      now += random() % 50;
      GQueue ready;
      heap.Run(now, &ready);
      size_t ended = 0, due = 0;
      for (G* g : list) due += g->timer.when <= now;
      while (G* g = ready.Pop()) {
        cr_assert(g->timer.when <= now);
        ++ended;
      }
      cr_assert(ended == due);
      std::erase_if(list, [now](G* g) {
        bool over = g->timer.when <= now;
        if (over) delete g;
        return over;
      });
    }
    uint64_t nearest = 0;
    for (G* g : list) {
      if (nearest == 0 || g->timer.when < nearest) nearest = g->timer.when;
    }
    cr_assert(heap.Nearest() == nearest && heap.size() == list.size());
  }
}
