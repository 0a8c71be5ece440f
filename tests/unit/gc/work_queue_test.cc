// SPDX-License-Identifier: Apache-2.0
// The pool of work: who waits for work is seen by those who have some, and the mark is not over
// while an assist scans.

#include "gc/work_queue.h"

#include <criterion/criterion.h>

#include <atomic>
#include <thread>

using undergo::gc::WorkChunk;
using undergo::gc::WorkPool;

namespace {

void PutOne(WorkPool& pool, uint64_t item) {
  WorkChunk* c = pool.NewChunk();
  cr_assert(c != nullptr);
  c->items[0] = item;
  c->count = 1;
  pool.Put(c);
}

Test(work_queue, waiting_in_vain_ends) {
  WorkPool pool;
  cr_expect(!pool.AwaitWork());
  cr_expect(!pool.IsWanted());
  PutOne(pool, 7);
  cr_expect(pool.AwaitWork());
  WorkChunk* c = pool.Take();
  cr_assert(c != nullptr && c->count == 1 && c->items[0] == 7);
  pool.Recycle(c);
  cr_expect(!pool.HasWork() && pool.Take() == nullptr);
}

// As a marker with work of its own does.
Test(work_queue, who_waits_is_given_work) {
  WorkPool pool;
  constexpr uint64_t kGiven = 1000;
  std::atomic<bool> over{false};
  std::thread owner([&] {
    for (uint64_t given = 0; given < kGiven && !over;) {
      if (pool.IsWanted() && !pool.HasWork()) PutOne(pool, ++given);
    }
  });
  for (uint64_t want = 1; want <= kGiven; want++) {
    while (!pool.AwaitWork()) {
    }
    WorkChunk* c = pool.Take();
    cr_assert(c != nullptr);
    cr_expect(c->items[0] == want);
    pool.Recycle(c);
  }
  over = true;
  owner.join();
}

Test(work_queue, the_mark_is_not_over_while_an_assist_scans) {
  WorkPool pool;
  cr_expect(pool.IsDone());
  pool.BeginScan();
  pool.BeginScan();
  cr_expect(!pool.IsDone());
  PutOne(pool, 1);
  pool.EndScan();
  pool.EndScan();
  cr_expect(!pool.IsDone(), "what it has handed back is still to be scanned");
  pool.Recycle(pool.Take());
  cr_expect(pool.IsDone());
  // A child of fork has no assists.
  pool.BeginScan();
  pool.ResetAfterForkInChild();
  cr_expect(pool.IsDone());
}

}  // namespace
