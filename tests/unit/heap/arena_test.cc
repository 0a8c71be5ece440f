// SPDX-License-Identifier: Apache-2.0
// Address to span for every kind of address, and the mark planes.

#include "heap/arena.h"

#include <criterion/criterion.h>
#include <sys/resource.h>

#include <set>

#include "plat/vm.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

Span* NewSpan(uint32_t slices, SpanUse use = SpanUse::kOther) {
  BusyScope busy;
  bool zeroed;
  Span* s = mheap.AllocSpan(slices, 1, use, Growth::kYes, &zeroed);
  cr_assert(s != nullptr);
  s->slots = 1;
  s->state = SpanState::kLarge;
  return s;
}

void Drop(Span* s) {
  BusyScope busy;
  mheap.FreeSpan(s);
}

void ExpectOutside() {
  for (Addr a : {Addr{0}, Addr{1}, Addr{4096}, arena.base - 1, arena.base - kSliceSize,
                 arena.base + arena.size, arena.base + arena.size + kSliceSize, Addr{1} << 47,
                 (Addr{1} << 47) - 1, Addr{1} << 63, ~Addr{0}, ~Addr{0} - kSliceSize,
                 AddressOf(__builtin_frame_address(0)),
                 AddressOf(reinterpret_cast<void*>(&ExpectOutside))}) {
    cr_expect(FindSpan(a) == nullptr, "%#zx", a);
  }
}

void ExpectFound() {
  Span* one = NewSpan(1);
  Span* many = NewSpan(37);
  Span* next = NewSpan(2);
  for (Span* s : {one, many, next}) {
    Addr start = SpanAddr(s);
    Addr end = start + s->slices * kSliceSize;
    cr_expect(start % kSliceSize == 0 && SpanAtSlice(SliceOf(start)) == s);
    for (Addr a = start; a < end; a += 4096 - 1) cr_assert(FindSpan(a) == s, "%#zx", a);
    cr_expect(FindSpan(start) == s && FindSpan(end - 1) == s);
    cr_expect(FindSpan(start - 1) != s && FindSpan(end) != s);
  }
  Addr start = SpanAddr(many);
  Drop(many);
  for (uint32_t i = 0; i < 37; ++i) cr_assert(FindSpan(start + i * kSliceSize) == nullptr);
  // A shorter span in the same place: what is behind it must not be found by the old span's marks.
  Span* again = NewSpan(5);
  cr_assert(SpanAddr(again) == start, "first fit");
  for (uint32_t i = 0; i < 37; ++i) {
    cr_assert(FindSpan(start + i * kSliceSize + 77) == (i < 5 ? again : nullptr), "slice %u", i);
  }
  Drop(again);
  Drop(one);
  Drop(next);
  ExpectOutside();
}

}  // namespace

Test(arena, nothing_before_the_first_allocation) {
  cr_expect(arena.base == 0 && arena.size == 0);
  ExpectOutside();
  cr_expect(not(InArena(&arena)));
}

Test(arena, finds_spans) { ExpectFound(); }

Test(arena, finds_spans_in_both_regions) {
  mheap.SetHugePages(HugePages::kAlways);
  Span* lower = NewSpan(64, SpanUse::kOther);
  Span* upper = NewSpan(3, SpanUse::kDense);
  cr_expect(SliceOfSpan(lower) < RegionLimit(Region::kLower));
  cr_expect(SliceOfSpan(upper) >= RegionBegin(Region::kUpper));
  cr_expect(FindSpan(SpanAddr(upper) + 3 * kSliceSize - 1) == upper);
  // Between the regions.
  Addr middle = SliceAddr(mheap.end(Region::kLower)) + 12345;
  cr_expect(InArena(reinterpret_cast<void*>(middle)) && FindSpan(middle) == nullptr);
  cr_expect(FindSpan(SliceAddr(mheap.end(Region::kUpper))) == nullptr);
  // Giving the reservation back keeps what is in use, and the addresses between give no span.
  mheap.ReleaseReservation();
  const uint32_t unused = RegionLimit(Region::kLower) / 2;
  for (Addr at : {SliceAddr(unused), arena.spans + unused * kSpanStride,
                  arena.marks + unused * kMarkStride, arena.fates + unused * kFateStride,
                  arena.rare + unused * kRareStride, arena.kinds + unused}) {
    cr_expect(!plat::IsMapped(at, 1), "%#lx is reserved still", static_cast<unsigned long>(at));
  }
  cr_expect(FindSpan(SpanAddr(upper)) == upper && FindSpan(SpanAddr(lower)) == lower);
  cr_expect(FindSpan(middle) == nullptr);
  memset(reinterpret_cast<void*>(SpanAddr(upper)), 1, 3 * kSliceSize);
  Drop(upper);
  cr_expect(FindSpan(SpanAddr(upper)) == nullptr);
  ExpectOutside();
}

Test(arena, finds_spans_without_a_reservation) {
#ifdef __SANITIZE_ADDRESS__
  cr_skip_test("the sanitizer's shadow memory needs more address space than the limit leaves");
#endif
  struct rlimit limit = {size_t{8} << 30, RLIM_INFINITY};
  if (setrlimit(RLIMIT_AS, &limit) != 0) cr_skip_test("no right to limit");
  ExpectFound();
  cr_expect(ArenaIsUnreserved());
}

Test(arena, mark_planes_are_distinct_and_zero) {
  std::vector<Span*> spans;
  for (uint32_t slices : {1, 3, 1, 200, 2, 1}) spans.push_back(NewSpan(slices));
  std::set<uint64_t*> words;
  for (Span* s : spans) {
    for (uint32_t plane = 0; plane < kMarkPlanes; ++plane) {
      uint64_t* bits = MarkBits(s, static_cast<Plane>(plane));
      cr_assert(bits != nullptr);
      for (uint32_t w = 0; w < kMaxWords; ++w) {
        cr_assert(words.insert(bits + w).second, "two spans share a word");
        cr_assert(bits[w] == 0);
        bits[w] = words.size();
      }
    }
  }
  size_t n = 0;
  for (Span* s : spans) {
    for (uint32_t plane = 0; plane < kMarkPlanes; ++plane) {
      uint64_t* bits = MarkBits(s, static_cast<Plane>(plane));
      for (uint32_t w = 0; w < kMaxWords; ++w) cr_assert(bits[w] == ++n, "marks moved");
    }
  }
}
