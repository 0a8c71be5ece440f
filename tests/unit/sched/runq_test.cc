// SPDX-License-Identifier: Apache-2.0
// Run queues: order, runnext, overflow, stealing; seeded owners and thieves at the same time.

#include <criterion/criterion.h>
#include <pthread.h>

#include <cstring>

#include "sched/sched.h"

using namespace undergo;
using namespace undergo::sched;

namespace {

constexpr uint32_t kMany = 4000;

auto& Shared() { return undergo::sched::sched; }

// Queues only link Gs: these need neither stack nor block.
struct Fixture {
  P a = {}, b = {};
  G gs[kMany] = {};
  Fixture() {
    for (uint32_t i = 0; i < kMany; ++i) gs[i].goid = i;
    Shared().global = {};
    Shared().procs = Shared().ps_made = 2;
  }
};

uint64_t Get(P* p) {
  bool inherits;
  G* g = RunqGet(p, &inherits);
  return g != nullptr ? g->goid : ~uint64_t{0};
}

uint64_t Random(uint64_t* state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

}  // namespace

Test(runq, first_in_first_out) {
  auto* f = new Fixture;
  cr_expect(RunqEmpty(&f->a));
  for (uint32_t i = 0; i < 10; ++i) RunqPut(&f->a, &f->gs[i], false);
  cr_expect(RunqSize(&f->a) == 10);
  for (uint32_t i = 0; i < 10; ++i) cr_expect(Get(&f->a) == i);
  cr_expect(Get(&f->a) == ~uint64_t{0});
}

Test(runq, runnext_comes_first_and_stays_in_the_slice) {
  auto* f = new Fixture;
  RunqPut(&f->a, &f->gs[1], false);
  RunqPut(&f->a, &f->gs[2], true);
  RunqPut(&f->a, &f->gs[3], true);  // 2 goes behind 1
  bool inherits;
  cr_expect(RunqGet(&f->a, &inherits) == &f->gs[3] && inherits);
  cr_expect(RunqGet(&f->a, &inherits) == &f->gs[1] && !inherits);
  cr_expect(RunqGet(&f->a, &inherits) == &f->gs[2] && !inherits);
}

Test(runq, threads_begin_in_the_order_in_which_they_were_made) {
  auto* f = new Fixture;
  bool inherits;
  RunqPutNew(&f->a, &f->gs[1]);
  cr_expect(RunqGet(&f->a, &inherits) == &f->gs[1] && inherits);
  for (uint32_t i = 2; i <= 5; ++i) RunqPutNew(&f->a, &f->gs[i]);
  cr_expect(RunqSteal(&f->b, &f->a, true) == &f->gs[2]);
  for (uint32_t i = 4; i <= 5; ++i) cr_expect(Get(&f->a) == i);
  cr_expect(Get(&f->b) == 3);
}

Test(runq, half_of_a_full_ring_goes_to_the_global_queue) {
  auto* f = new Fixture;
  for (uint32_t i = 0; i <= kRingSize; ++i) RunqPut(&f->a, &f->gs[i], false);
  cr_expect(RunqSize(&f->a) == kRingSize / 2);
  cr_expect(Shared().global.size == kRingSize / 2 + 1);
  for (uint32_t i = 0; i < kRingSize / 2; ++i) cr_expect(Shared().global.Pop()->goid == i);
  cr_expect(Shared().global.Pop()->goid == kRingSize);
  cr_expect(Get(&f->a) == kRingSize / 2);
}

Test(runq, thieves_take_half_and_runnext_last) {
  auto* f = new Fixture;
  for (uint32_t i = 0; i < 9; ++i) RunqPut(&f->a, &f->gs[i], false);
  G* g = RunqSteal(&f->b, &f->a, false);
  cr_expect(g == &f->gs[0] && RunqSize(&f->b) == 4 && RunqSize(&f->a) == 4);
  for (uint32_t i = 1; i <= 4; ++i) cr_expect(Get(&f->b) == i);
  while (Get(&f->a) != ~uint64_t{0}) {
  }
  RunqPut(&f->a, &f->gs[20], true);
  cr_expect(RunqSteal(&f->b, &f->a, false) == nullptr);
  cr_expect(RunqSteal(&f->b, &f->a, true) == &f->gs[20]);
  cr_expect(RunqEmpty(&f->a));
}

namespace {

// Each G must come out exactly once, whoever takes it.
struct Race {
  Fixture f;
  uint32_t taken[kMany] = {};  // atomic
  uint32_t stop = 0;           // atomic
  uint64_t seed = 0;
};

void* Thief(void* arg) {
  auto* r = static_cast<Race*>(arg);
  uint64_t state = r->seed * 7 + 3;
  while (LoadAcquire(&r->stop) == 0) {
    G* g = RunqSteal(&r->f.b, &r->f.a, Random(&state) % 2 == 0);
    while (g != nullptr) {
      FetchAddRelaxed(&r->taken[g->goid], 1u);
      bool inherits;
      g = RunqGet(&r->f.b, &inherits);
    }
  }
  return nullptr;
}

}  // namespace

Test(runq, nothing_is_lost_or_doubled_between_owner_and_thief) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    auto* r = new Race;
    r->seed = seed;
    pthread_t thief;
    cr_assert(pthread_create(&thief, nullptr, Thief, r) == 0);
    uint64_t state = seed;
    bool inherits;
    for (uint32_t i = 0; i < kMany;) {
      if (Random(&state) % 3 != 0) {
        RunqPut(&r->f.a, &r->f.gs[i++], Random(&state) % 4 == 0);
      } else if (G* g = RunqGet(&r->f.a, &inherits)) {
        FetchAddRelaxed(&r->taken[g->goid], 1u);
      }
    }
    while (G* g = RunqGet(&r->f.a, &inherits)) FetchAddRelaxed(&r->taken[g->goid], 1u);
    StoreRelease(&r->stop, 1u);  // pairs: Thief
    pthread_join(thief, nullptr);
    while (G* g = RunqGet(&r->f.b, &inherits)) FetchAddRelaxed(&r->taken[g->goid], 1u);
    while (G* g = Shared().global.Pop()) FetchAddRelaxed(&r->taken[g->goid], 1u);
    for (uint32_t i = 0; i < kMany; ++i) {
      cr_assert(r->taken[i] == 1, "seed %lu: G %u came out %u times", seed, i, r->taken[i]);
    }
    delete r;
  }
}
