// SPDX-License-Identifier: Apache-2.0
// Slices that random data names: kept for two mark phases, avoided by small requests only.

#include "heap/blacklist.h"

#include <criterion/criterion.h>

#include <vector>

#include "heap/fastpath.h"
#include "heap/malloc.h"
#include "heap/slice_alloc.h"

using namespace undergo::heap;

namespace {

Blacklist list;

struct Slices {
  explicit Slices(uint32_t begin, uint32_t end) : bits(4, std::vector<uint64_t>(16)) {
    alloc = SliceAlloc(bits[0].data(), bits[1].data(), bits[2].data(), bits[3].data());
    alloc.SetBegin(begin, 0);
    alloc.Grow(end);
  }
  std::vector<std::vector<uint64_t>> bits;
  SliceAlloc alloc{nullptr, nullptr, nullptr, nullptr};
};

}  // namespace

// The list is made for a heap whose range is reserved, as it is from the first allocation on.
TestSuite(
    blacklist, .init = [] { Free(Malloc(1)); });

Test(blacklist, lasts_for_two_phases) {
  cr_expect(!list.any());
  list.Begin();
  list.Add(70);
  list.Add(kMaxSlices - 1);
  cr_expect(list.any() && list.Word(1) == uint64_t{1} << 6);
  cr_expect(list.Word(kMaxSlices / 64 - 1) == uint64_t{1} << 63);
  list.Begin();
  list.Add(71);
  cr_expect(list.Word(1) == uint64_t{3} << 6);
  list.Begin();
  cr_expect(list.Word(1) == uint64_t{2} << 6);
  list.Begin();
  cr_expect(list.Word(1) == 0 && !list.any());
}

Test(blacklist, is_avoided) {
  Slices s(10, 200);
  list.Begin();
  for (uint32_t black : {10, 11, 13, 15, 66, 67}) list.Add(black);
  cr_expect(s.alloc.AllocAvoiding(1, list) == 12);
  cr_expect(s.alloc.AllocAvoiding(1, list) == 14);
  cr_expect(s.alloc.AllocAvoiding(2, list) == 16);
  cr_expect(s.alloc.AllocAvoiding(4, list) == 18);
  // What the list names stays free for others.
  cr_expect(s.alloc.Alloc(2, 1) == 10);
  for (uint32_t at = 22; at < 64; at += 2) cr_expect(s.alloc.AllocAvoiding(2, list) == at);
  cr_expect(s.alloc.AllocAvoiding(4, list) == 68);
  cr_expect(s.alloc.AllocAvoiding(1, list) == 64);
}

Test(blacklist, ends_with_the_region) {
  Slices s(0, 70);
  list.Begin();
  for (uint32_t black = 0; black < 69; ++black) list.Add(black);
  cr_expect(s.alloc.AllocAvoiding(2, list) == SliceAlloc::kNone);
  cr_expect(s.alloc.AllocAvoiding(1, list) == 69);
  cr_expect(s.alloc.AllocAvoiding(1, list) == SliceAlloc::kNone);
  cr_expect(s.alloc.Alloc(1, 1) == 0);
}
