// SPDX-License-Identifier: Apache-2.0
// Large objects: their size, growth in place, double frees.

#include "heap/large.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include "heap/malloc.h"
#include "heap/sweep.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

TestSuite(large, .timeout = 60);

Test(large, shape) {
  for (size_t size :
       {size_t{65537}, size_t{69632}, size_t{100000}, size_t{131072}, size_t{10000000}}) {
    void* p = MallocLarge(size, 1, false);
    Span* s = FindSpan(AddressOf(p));
    cr_expect(s->state == SpanState::kLarge && s->cls == kLargeClass && s->slots == 1);
    cr_expect(s->large_bytes == AlignUp(size, kOsPageSize));
    cr_expect(s->slices == (size + kSliceSize - 1) / kSliceSize);
    cr_expect(SpanAddr(s) == AddressOf(p) && s->owner == nullptr);
    Fill(p, s->large_bytes, size);
    cr_expect(Verify(p, s->large_bytes, size) == s->large_bytes);
    Free(p);
    cr_expect(s->state == SpanState::kFree);
  }
  cr_expect(InUse() == 0);
}

Test(large, alignment_in_slices) {
  std::vector<void*> all;
  for (uint32_t slices = 1; slices <= 1024; slices *= 2) {
    for (int i = 0; i < 3; ++i) {
      void* p = MallocLarge(100000, slices, false);
      cr_assert(AddressOf(p) % (slices * kSliceSize) == 0);
      all.push_back(p);
    }
  }
  for (void* p : all) Free(p);
  cr_expect(InUse() == 0);
}

Test(large, grows_and_shrinks_where_it_is) {
  Free(MallocLarge(100000, 1, false));
  void* first = MallocLarge(100000, 1, false);  // what follows lies behind the heap's reserve
  void* p = MallocLarge(100000, 1, false);
  Span* s = FindSpan(AddressOf(p));
  Fill(p, 100000, 1);
  cr_assert(ResizeLarge(s, 500000));
  cr_expect(s->large_bytes == AlignUp(500000, kOsPageSize) && s->slices == 8);
  cr_expect(FindSpan(AddressOf(p) + 499999) == s);
  void* behind = MallocLarge(100000, 1, false);
  cr_expect(AddressOf(behind) == AddressOf(p) + 8 * kSliceSize, "first fit");
  cr_expect(not(ResizeLarge(s, 600000)), "grew into another object");
  cr_expect(s->slices == 8 && Verify(p, 100000, 1) == 100000);
  cr_assert(ResizeLarge(s, 70000));
  cr_expect(s->slices == 2 && FindSpan(AddressOf(p) + 3 * kSliceSize) == nullptr);
  void* between = MallocLarge(6 * kSliceSize, 1, false);
  cr_expect(AddressOf(between) == AddressOf(p) + 2 * kSliceSize);
  cr_expect(Verify(p, 70000, 1) == 70000);
  Free(p);
  Free(between);
  Free(behind);
  Free(first);
  cr_expect(InUse() == 0);
}

Test(large, only_one_free_finds_it_alive) {
  Span* s = FindSpan(AddressOf(MallocLarge(100000, 1, false)));
  cr_expect(FreeLarge(s));
  cr_expect(not(FreeLarge(s)));
  cr_expect(InUse() == 0);
}

Test(large, zeroed) {
  for (int round = 0; round < 20; ++round) {
    size_t size = 70000 + static_cast<size_t>(round) * 50000;
    void* p = MallocLarge(size, 1, true);
    cr_assert(IsZero(p, size), "round %d", round);
    memset(p, 1, size);
    if (round % 3 == 0) ResizeLarge(FindSpan(AddressOf(p)), size / 2);
    if (round % 2 == 0) Free(p);
    if (round % 7 == 0) Trim();
  }
}

// Pages that the program did not ask for are never touched.
Test(large, fresh_memory_stays_untouched) {
  constexpr size_t kSize = 64 * kMiB;
  auto* p = static_cast<char*>(MallocLarge(kSize, 1, true));
  std::vector<unsigned char> resident(kSize / kOsPageSize);
  cr_assert(mincore(p, kSize, resident.data()) == 0);
  size_t pages = 0;
  for (unsigned char r : resident) pages += r & 1;
  cr_expect(pages == 0, "%zu pages", pages);
}

// The collector may want to wait before the heap grows by that much.
Test(large, the_collector_is_told_before) {
  static size_t told, in_use, times;
  before_large = [](size_t bytes) {
    told = bytes;
    in_use = InUse();
    ++times;
  };
  void* p = Malloc(300000);
  cr_expect(told == 300000 && in_use == 0 && times == 1);
  void* q = MallocAligned(2 * kSliceSize, 100);
  cr_expect(times == 2 && in_use > 0);
  void* small = Malloc(1000);
  cr_expect(times == 2);
  BusyScope busy;
  void* r = Malloc(200000);
  cr_expect(times == 2);
  before_large = nullptr;
  for (void* each : {p, q, small, r}) cr_expect(each != nullptr);
}
