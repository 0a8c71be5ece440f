// SPDX-License-Identifier: Apache-2.0
// Address to object for every byte, and walks against a shadow of what is allocated.

#include "heap/walk.h"

#include <criterion/criterion.h>

#include <map>

#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

std::map<Addr, size_t> shadow;  // start to class size

void ExpectEqualToShadow() {
  std::map<Addr, size_t> found;
  Addr last = 0;
  ForEachSpan([&](const Span* s) {
    cr_assert(last == 0 || SpanAddr(s) > last, "spans out of order");
    last = SpanAddr(s);
    if (s->state == SpanState::kLarge) {
      found[SpanAddr(s)] = s->large_bytes;
      return;
    }
    ForEachAllocatedSlot(s, [&](uint32_t slot) {
      cr_assert(slot < s->slots);
      bool fresh = found.insert({SpanAddr(s) + size_t{slot} * s->slot_size, s->slot_size}).second;
      cr_assert(fresh, "a slot was visited twice");
    });
  });
  cr_assert(found.size() == shadow.size(), "%zu objects, wanted %zu", found.size(), shadow.size());
  cr_assert(found == shadow, "other objects");
}

void* New(size_t size) {
  void* p = Malloc(size);
  shadow[AddressOf(p)] =
      size > kMaxSmallSize ? AlignUp(size, kOsPageSize) : kClasses[ClassOf(size)].size;
  return p;
}

}  // namespace

TestSuite(walk, .timeout = 60);

Test(walk, every_byte_of_an_object_finds_it) {
  for (size_t size : SizesOfEachClass()) {
    for (int i = 0; i < 3; ++i) {
      auto* p = static_cast<char*>(Malloc(size));
      for (size_t at = 0; at<size; at += size> 4096 ? 7 : 1) {
        Object o;
        cr_assert(FindObject(AddressOf(p + at), &o), "size %zu, byte %zu", size, at);
        cr_assert(o.base == AddressOf(p) && o.size == size && o.allocated);
        cr_assert(o.span == FindSpan(AddressOf(p)) && SpanAddr(o.span) + o.slot * size == o.base);
      }
      // The byte behind is the next slot's, whatever that is, or in the unused tail.
      Object o;
      if (FindObject(AddressOf(p + size), &o)) cr_assert(o.base == AddressOf(p + size));
      if (FindObject(AddressOf(p - 1), &o)) cr_assert(o.base + o.size == AddressOf(p));
      if (i != 1) {
        Free(p);
        cr_assert(FindObject(AddressOf(p), &o) && not(o.allocated) && o.base == AddressOf(p));
      }
    }
  }
}

Test(walk, large_objects) {
  auto* p = static_cast<char*>(Malloc(100000));
  size_t usable = AlignUp(size_t{100000}, kOsPageSize);
  Object o;
  for (size_t at = 0; at < usable; at += 13) {
    cr_assert(FindObject(AddressOf(p + at), &o) && o.base == AddressOf(p) && o.size == usable);
    cr_assert(o.allocated && o.slot == 0);
  }
  cr_expect(FindObject(AddressOf(p + usable - 1), &o));
  cr_expect(not(FindObject(AddressOf(p + usable), &o)), "in the unused tail");
  Free(p);
  cr_expect(not(FindObject(AddressOf(p), &o)));
}

Test(walk, addresses_of_nobody) {
  Object o;
  cr_expect(not(FindObject(AddressOf(&o), &o)));
  const SizeClass& c = kClasses[ClassOf(3000)];
  void* p = Malloc(c.size);
  Span* s = FindSpan(AddressOf(p));
  for (Addr a :
       {Addr{0}, Addr{1}, ~Addr{0}, arena.base - 1, arena.base + arena.size, AddressOf(&o)}) {
    cr_expect(not(FindObject(a, &o)), "%#zx", a);
  }
  Addr tail = SpanAddr(s) + size_t{c.slots} * c.size;
  cr_assert(tail < SpanAddr(s) + c.slices * kSliceSize);
  for (Addr a = tail; a < SpanAddr(s) + c.slices * kSliceSize; ++a)
    cr_assert(not(FindObject(a, &o)));
  cr_expect(FindObject(tail - 1, &o) && o.slot == c.slots - 1u);
}

Test(walk, random_against_a_shadow) {
  Random random = {21};
  std::vector<Addr> live;
  for (int step = 0; step < 40000; ++step) {
    if (live.empty() || Below(&random, 100) < (step < 15000 ? 60 : 48)) {
      size_t size = 1 + Below(&random, Below(&random, 50) == 0 ? 300000 : 2000);
      live.push_back(AddressOf(New(size)));
    } else {
      size_t i = Below(&random, live.size());
      shadow.erase(live[i]);
      void* p = reinterpret_cast<void*>(live[i]);
      if (Below(&random, 200) == 0) {
        OnThread([&] { Free(p); });
      } else {
        Free(p);
      }
      live[i] = live.back();
      live.pop_back();
    }
    if (step % 2000 == 0) ExpectEqualToShadow();
  }
  ExpectEqualToShadow();
  OnThread([&] {
    for (size_t size = 1; size < 70000; size += 901) New(size);
  });
  ExpectEqualToShadow();
  for (auto& [a, size] : shadow) Free(reinterpret_cast<void*>(a));
  shadow.clear();
  ExpectEqualToShadow();
}
