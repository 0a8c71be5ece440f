// SPDX-License-Identifier: Apache-2.0
// Wait queues found by address, on a thread without a G: who is woken, in which order. The
// interleavings are tests/sim's.

#include "sched/sema.h"

#include <criterion/criterion.h>

#include "plat/clock.h"

using namespace undergo;
using namespace undergo::sched;

namespace {

int a, b;  // their addresses are keys

// Several of them may stand in a queue for one thread, as long as that does not sleep.
struct Row {
  Sleeper s[4] = {{WaitReason::kSemaphore, &a},
                  {WaitReason::kSemaphore, &a},
                  {WaitReason::kSemaphore, &a},
                  {WaitReason::kSemaphore, &a}};
  Row() {
    Visit v(&a);
    for (Sleeper& one : s) v.Queue(&one);
  }
};

// Wakes the first one: its number in the row, -1: nobody is there.
long Next(const Row& row, const void* key) {
  long index = -1;
  Visit v(key);
  v.WakeOne([&](Sleeper* s) { index = s - &row.s[0]; });
  return index;
}

}  // namespace

Test(sema, first_come_first_served) {
  Row row;
  cr_expect(MaySleep(&a));
  for (long i = 0; i < 4; ++i) cr_expect(Next(row, &a) == i);
  cr_expect(Next(row, &a) == -1);
  cr_expect(!MaySleep(&a));
  cr_expect(row.s[2].more && !row.s[3].more);
}

Test(sema, who_goes_in_front_is_woken_first) {
  Row row;
  Sleeper front(WaitReason::kSemaphore, &a);
  {
    Visit v(&a);
    v.Queue(&front, true);
    cr_expect(v.First() == &front);
    cr_expect(v.WakeOne());
    cr_expect(v.First() == &row.s[0]);
    v.WakeAll();
    cr_expect(v.Empty());
  }
}

Test(sema, wakes_those_that_have_a_bit_in_common) {
  Row row;
  for (uint64_t i = 0; i < 4; ++i) row.s[i].detail = i < 2 ? 1 : 2;
  {
    Visit v(&a);
    cr_expect(v.WakeMany(1, 2) == 1);
    cr_expect(v.WakeMany(9, 4) == 0);
    cr_expect(v.WakeMany(0) == 0);
    cr_expect(v.WakeMany(9, 2) == 1);
  }
  cr_expect(Next(row, &a) == 0);
  cr_expect(Next(row, &a) == 1);
  cr_expect(Next(row, &a) == -1);
}

Test(sema, requeued_ones_keep_their_order_behind_who_is_there) {
  Row row;
  Sleeper there(WaitReason::kMutex, &b);
  {
    Visit v(&b);
    v.Queue(&there);
  }
  {
    Visit v(&a, &b);
    cr_expect(v.Requeue(2) == 2);
    cr_expect(v.First() == &row.s[2]);
  }
  {
    Visit v(&a);
    cr_expect(v.Reach(&b));  // nobody else holds it
    cr_expect(v.Requeue(9) == 2);
    cr_expect(v.Empty());
  }
  {
    Visit v(&b);
    cr_expect(v.First() == &there);
    v.WakeOne();
  }
  for (long i = 0; i < 4; ++i) cr_expect(Next(row, &b) == i && row.s[i].key == &b);
}

Test(sema, a_timeout_leaves_the_queue) {
  Sleeper s(WaitReason::kSemaphore, &a);
  Visit v(&a);
  cr_expect(v.Wait(&s, plat::NowNs() + 1000, false) == Wake::kTimeout);
  cr_expect(!MaySleep(&a));
}
