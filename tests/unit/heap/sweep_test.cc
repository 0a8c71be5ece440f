// SPDX-License-Identifier: Apache-2.0
// Sweeping frees exactly what is not marked, once for each generation.

#include "heap/sweep.h"

#include <criterion/criterion.h>

#include <atomic>
#include <set>
#include <thread>

#include "heap/walk.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

void Mark(const void* p) {
  Object o;
  cr_assert(FindObject(AddressOf(p), &o) && o.allocated);
  SetBits(MarkBits(o.span, Plane::kMarked), o.slot, 1, true);
}

std::set<Addr> Allocated() {
  std::set<Addr> all;
  ForEachSpan([&](const Span* s) {
    if (s->state == SpanState::kLarge) return;
    ForEachAllocatedSlot(
        s, [&](uint32_t slot) { all.insert(SpanAddr(s) + size_t{slot} * s->slot_size); });
  });
  return all;
}

std::vector<Span*> AllSpans() {
  std::vector<Span*> spans;
  ForEachSpan([&](Span* s) { spans.push_back(s); });
  return spans;
}

void NextGeneration() { StoreRelease(&heap_sweepgen, heap_sweepgen + 2); }

}  // namespace

TestSuite(sweep, .timeout = 60);

Test(sweep, frees_exactly_the_unmarked) {
  Random random = {31};
  std::vector<Block> marked;
  size_t garbage = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    size_t size = 1 + Below(&random, Below(&random, 20) == 0 ? 60000 : 800);
    if (Below(&random, 3) == 0) {
      marked.push_back(NewBlock(size, i));
      Mark(marked.back().p);
    } else if (Below(&random, 2) == 0) {
      NewBlock(size, i);
      ++garbage;
    } else {
      DropBlock(NewBlock(size, i));
    }
  }
  size_t swept = 0;
  NextGeneration();
  for (Span* s : AllSpans()) {
    SweepResult r = SweepSpan(s);
    cr_assert(r.swept);
    swept += r.slots;
    cr_assert(s->sweepgen == heap_sweepgen);
  }
  cr_expect(swept == garbage, "%zu swept, wanted %zu", swept, garbage);
  std::set<Addr> wanted;
  for (const Block& b : marked) wanted.insert(AddressOf(b.p));
  cr_expect(Allocated() == wanted);
  // The owner gets the slots back, and live objects are left alone.
  std::vector<Block> again;
  for (uint64_t i = 0; i < 20000; ++i) again.push_back(NewBlock(1 + Below(&random, 800), i));
  for (const Block& b : marked) CheckBlock(b);
  DropBlocks(&marked);
  DropBlocks(&again);
}

Test(sweep, slots_of_the_cursor_are_not_garbage) {
  void* p = Malloc(64);
  Span* s = FindSpan(AddressOf(p));
  NextGeneration();
  SweepResult r = SweepSpan(s);
  cr_expect(r.swept && r.slots == 1, "%u", r.slots);
  std::set<void*> all;
  for (uint32_t i = 0; i < 2u * s->slots; ++i) cr_assert(all.insert(Malloc(64)).second);
}

Test(sweep, once_for_each_generation) {
  void* p = Malloc(64);
  Span* s = FindSpan(AddressOf(p));
  NextGeneration();
  cr_expect(SweepSpan(s).swept);
  void* q = Malloc(64);
  cr_expect(not(SweepSpan(s).swept));
  Object o;
  cr_expect(FindObject(AddressOf(q), &o) && o.allocated);
  NextGeneration();
  // Another sweeper is at it.
  StoreRelaxed(&s->sweepgen, heap_sweepgen - 1);
  cr_expect(not(SweepSpan(s).swept));
  cr_expect(FindObject(AddressOf(q), &o) && o.allocated);
  StoreRelaxed(&s->sweepgen, heap_sweepgen - 2);
  SweepResult r = SweepSpan(s);
  cr_expect(r.swept && r.slots == 1);
}

Test(sweep, what_is_freed_counts_until_somebody_looks) {
  gc_heap.enabled = true;
  std::vector<void*> all;
  for (int i = 0; i < 5000; ++i) all.push_back(Malloc(100));
  size_t slot = FindSpan(AddressOf(all[0]))->slot_size;
  auto live = [] { return LoadRelaxed(&gc_heap.live_bytes) + thread_words.mcache->gc_small; };
  auto look = [] {
    size_t bytes = 0;
    ForEachSpan([&bytes](Span* s) { bytes += UncountFreed(s); });
    return bytes;
  };
  uint64_t before = live();
  cr_expect(before >= 5000 * slot && before < 5064 * slot);
  cr_expect(look() == 0);
  for (size_t i = 0; i < all.size(); i += 3) Free(all[i]);
  size_t freed = (all.size() + 2) / 3 * slot;
  cr_expect(live() == before);
  // Remote frees as well.
  std::thread([&all] { Free(all[1]); }).join();
  freed += slot;
  cr_expect(look() == freed);
  cr_expect(live() == before - freed, "%lu, wanted %lu", live(), before - freed);
  cr_expect(look() == 0);
  // What is taken again counts again, once.
  size_t reused = 0;
  for (int i = 0; i < 1000; ++i) {
    auto* p = Malloc(100);
    for (size_t k = 0; k < all.size(); k += 3) reused += p == all[k];
  }
  cr_expect(reused > 500);
  cr_expect(live() >= before - freed + reused * slot);
  cr_expect(live() < before - freed + 1064 * slot);
}

Test(sweep, large_objects_are_not_its_business) {
  void* p = Malloc(200000);
  NextGeneration();
  SweepResult r = SweepSpan(FindSpan(AddressOf(p)));
  cr_expect(not(r.swept) && r.slots == 0);
  Free(p);
}

Test(sweep, of_several_sweepers_each_span_has_one) {
  for (int round = 0; round < 20; ++round) {
    for (uint64_t i = 0; i < 10000; ++i) NewBlock(100, i);
    std::set<Addr> before = Allocated();
    std::vector<Span*> spans = AllSpans();
    NextGeneration();
    std::atomic<size_t> swept{0}, slots{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (Span* s : spans) {
          SweepResult r = SweepSpan(s);
          swept += r.swept;
          slots += r.slots;
        }
      });
    }
    for (std::thread& t : threads) t.join();
    cr_assert(swept == spans.size(), "%zu of %zu spans", swept.load(), spans.size());
    cr_assert(slots == before.size(), "%zu of %zu slots", slots.load(), before.size());
    cr_assert(Allocated().empty());
  }
}

// The program frees marked objects and allocates while the sweeper runs.
Test(sweep, a_running_program) {
  for (int round = 0; round < 30; ++round) {
    std::vector<Block> live;
    for (uint64_t i = 0; i < 8000; ++i) {
      Block b = NewBlock(16 + i % 7 * 48, i);
      if (i % 2 == 0) live.push_back(b);
    }
    ForEachSpan([](Span* s) { SetBits(MarkBits(s, Plane::kMarked), 0, kMaxSlots, false); });
    for (const Block& b : live) Mark(b.p);
    std::vector<Span*> spans = AllSpans();
    NextGeneration();
    std::atomic<bool> go{false};
    std::thread sweeper([&] {
      while (!go) {
      }
      for (Span* s : spans) SweepSpan(s);
    });
    go = true;
    DropBlocks(&live);
    sweeper.join();
    cr_assert(Allocated().empty(), "round %d", round);
  }
}
