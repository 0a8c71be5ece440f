// SPDX-License-Identifier: Apache-2.0
// Pins belong to objects, not to slots, and a sweep leaves pinned objects alone.

#include "heap/pin.h"

#include <criterion/criterion.h>

#include <set>

#include "heap/malloc.h"
#include "heap/sweep.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

std::set<Addr> Pinned() {
  std::set<Addr> all;
  ForEachPinned([&](Addr a) { cr_assert(all.insert(a).second, "twice"); });
  return all;
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

void Start() {
  gc_heap.enabled = true;
  gc_heap.no_probation = true;
}

bool IsAllocated(void* p) {
  Object o;
  return FindObject(AddressOf(p), &o) && o.allocated;
}

}  // namespace

TestSuite(pin, .timeout = 30, .init = Start);

Test(pin, of_every_size_and_once) {
  std::set<Addr> wanted;
  for (size_t size : SizesOfEachClass()) {
    void* p = Malloc(size);
    Malloc(size);
    Pin(p);
    Pin(p);
    cr_assert(IsPinned(p));
    wanted.insert(AddressOf(p));
  }
  void* large = Malloc(300000);
  Pin(large);
  wanted.insert(AddressOf(large));
  cr_expect(Pinned() == wanted);
}

Test(pin, other_addresses_are_ignored) {
  int local;
  char* p = static_cast<char*>(Malloc(100));
  for (void* q :
       {static_cast<void*>(nullptr), static_cast<void*>(&local), static_cast<void*>(p + 8),
        reinterpret_cast<void*>(arena.base + arena.size - 16)}) {
    Pin(q);
  }
  cr_expect(Pinned().empty());
  cr_expect(not(IsPinned(p)));
}

Test(pin, a_sweep_leaves_pinned_objects_alone) {
  void* kept = Malloc(100);
  void* lost = Malloc(100);
  void* kept_large = Malloc(200000);
  void* lost_large = Malloc(200000);
  Pin(kept);
  Pin(kept_large);
  // What was handed out since the last cycle counts as marked.
  ForEachSpan([](Span* s) { SetBits(MarkBits(s, Plane::kMarked), 0, kMaxSlots, false); });
  SweepAll();
  cr_expect(IsAllocated(kept) && IsAllocated(kept_large));
  cr_expect(not(IsAllocated(lost)));
  cr_expect(not(IsAllocated(lost_large)));
}

Test(pin, ends_with_the_object) {
  std::set<void*> pinned;
  for (int i = 0; i < 5000; ++i) {
    void* p = Malloc(48);
    Pin(p);
    pinned.insert(p);
  }
  for (void* p : pinned) Free(p);
  cr_expect(Pinned().empty());
  size_t again = 0;
  for (int i = 0; i < 5000; ++i) {
    void* p = Malloc(48);
    again += pinned.count(p);
    cr_assert(not(IsPinned(p)), "a new object is pinned");
  }
  cr_expect(again > 4000, "%zu slots were used again", again);
  // A large object, and then small ones in its place.
  void* large = Malloc(300000);
  Pin(large);
  Free(large);
  for (int i = 0; i < 200; ++i) {
    void* p = Malloc(300000);
    cr_assert(not(IsPinned(p)));
    Free(p);
  }
  cr_expect(Pinned().empty());
}

Test(pin, goes_with_realloc) {
  void* p = Malloc(100);
  Pin(p);
  void* other = Malloc(100);
  p = Realloc(p, 5000, nullptr);
  other = Realloc(other, 5000, nullptr);
  cr_expect(IsPinned(p) && not(IsPinned(other)));
  p = Realloc(p, 500000, nullptr);
  cr_expect(IsPinned(p));
}

Test(pin, all_objects) {
  std::set<Addr> wanted;
  for (size_t size : SizesOfEachClass()) wanted.insert(AddressOf(Malloc(size)));
  wanted.insert(AddressOf(Malloc(200000)));
  PinAll();
  std::set<Addr> pinned = Pinned();
  for (Addr a : wanted) cr_assert(pinned.count(a) == 1);
  cr_expect(not(IsPinned(Malloc(64))));
}
