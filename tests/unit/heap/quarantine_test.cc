// SPDX-License-Identifier: Apache-2.0
// Freed objects stay until a sweep finds them unmarked.

#include "heap/quarantine.h"

#include <criterion/criterion.h>

#include <set>

#include "heap/bad_free.h"
#include "heap/malloc.h"
#include "heap/walk.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

void Start() {
  Free(Malloc(40));  // a span from before
  gc_heap.enabled = true;
  gc_heap.mode = ReclaimMode::kQuarantine;
  StartQuarantine();
}

void Unmark() {
  ForEachSpan([](Span* s) { SetBits(MarkBits(s, Plane::kMarked), 0, kMaxSlots, false); });
}
void Mark(const void* p) {
  Span* s = FindSpan(AddressOf(p));
  uint32_t slot = s->state == SpanState::kLarge
                      ? 0
                      : static_cast<uint32_t>(AddressOf(p) - SpanAddr(s)) / s->slot_size;
  SetBits(MarkBits(s, Plane::kMarked), slot, 1, true);
}
void SweepAll() {
  StoreRelaxed(&heap_sweepgen, heap_sweepgen + 2);
  ForEachSpan([](Span* s) {
    if (s->state == SpanState::kLarge) {
      SweepLarge(s);
    } else {
      SweepSpan(s);
    }
  });
}
bool IsAllocated(void* p) {
  Object o;
  return FindObject(AddressOf(p), &o) && o.allocated;
}

// Its slot or its span is free, not only the object.
bool IsFree(void* p) {
  Object o;
  if (!FindObject(AddressOf(p), &o)) return true;
  if (o.span->state == SpanState::kLarge) return LoadRelaxed(&o.span->large_state) != kLargeLive;
  return ((AllocatedBits(o.span, o.slot / 64) >> (o.slot % 64)) & 1) == 0;
}

constexpr size_t kSizes[] = {40, 100, 3000, 30000, 60000, 300000};

}  // namespace

TestSuite(quarantine, .timeout = 60, .init = Start);

Test(quarantine, freed_slots_are_not_handed_out) {
  for (size_t size : kSizes) {
    std::set<void*> freed;
    for (int i = 0; i < 200; ++i) {
      void* p = Malloc(size);
      cr_assert(freed.insert(p).second, "%zu bytes: used again", size);
      Fill(p, size, 1);
      Free(p);
      cr_assert(not(IsAllocated(p)));
      cr_assert(Verify(p, size, 1) == size);
    }
  }
}

Test(quarantine, a_sweep_takes_what_is_freed_and_unmarked) {
  for (size_t size : kSizes) {
    void* live = Malloc(size);
    void* lost = Malloc(size);
    void* dangling = Malloc(size);
    void* dead = Malloc(size);
    Free(dangling);
    Free(dead);
    uint64_t before = sweep_counts.reclaimed_objects;
    Unmark();
    Mark(live);
    Mark(dangling);
    SweepAll();
    cr_expect(sweep_counts.reclaimed_objects - before >= 1);
    cr_expect(IsAllocated(live) && IsAllocated(lost), "%zu bytes", size);
    std::set<void*> again;
    for (int i = 0; i < 300; ++i) again.insert(Malloc(size));
    cr_expect(again.count(dead) == 1 || IsFree(dead), "%zu bytes", size);
    cr_expect(not(IsFree(dangling)), "%zu bytes", size);
    cr_expect(again.count(dangling) == 0 && again.count(lost) == 0, "%zu bytes", size);
    // A new owner frees it for the first time.
    for (void* p : again) Free(p);
  }
}

Test(quarantine, second_frees_are_noticed) {
  for (size_t size : kSizes) {
    LastWords words = InChild([size] {
      void* p = Malloc(size);
      Free(p);
      for (int i = 0; i < 100; ++i) Free(Malloc(size));
      Free(p);
    });
    cr_expect(words.aborted() && words.text.find("double free") != std::string::npos, "%s",
              words.text.c_str());
    // Also when the slot was reclaimed meanwhile.
    words = InChild([size] {
      void* p = Malloc(size);
      Free(p);
      Unmark();
      SweepAll();
      Free(p);
    });
    cr_expect(words.aborted(), "%zu bytes", size);
  }
}

Test(quarantine, realloc_moves_and_keeps) {
  void* p = Malloc(100);
  Fill(p, 100, 3);
  void* q = Realloc(p, 5000, nullptr);
  cr_expect(q != p && Verify(p, 100, 3) == 100 && not(IsAllocated(p)));
  void* large = Malloc(1 << 20);
  Fill(large, 1 << 20, 4);
  void* small = Realloc(large, 100000, nullptr);
  cr_expect(small != large && Verify(large, 1 << 20, 4) == 1 << 20);
}

Test(quarantine, ends_when_no_cycle_comes_any_more) {
  StopQuarantine();
  std::set<void*> seen;
  size_t again = 0;
  for (int i = 0; i < 10000; ++i) {
    void* p = Malloc(100);
    again += !seen.insert(p).second;
    Free(p);
  }
  cr_expect(again > 5000, "%zu", again);
}
