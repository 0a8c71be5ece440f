// SPDX-License-Identifier: Apache-2.0
// Alignment helpers and checked arithmetic at their edges.

#include "base/types.h"

#include <criterion/criterion.h>

#include <cstdint>

using namespace undergo;

Test(types, powers_and_alignment) {
  cr_expect(not(IsPowerOfTwo(0)));
  for (int i = 0; i < 64; ++i) {
    size_t p = size_t{1} << i;
    cr_expect(IsPowerOfTwo(p));
    cr_expect(i < 2 || not(IsPowerOfTwo(p - 1)));
    cr_expect(i < 1 || not(IsPowerOfTwo(p + 1)) || p == 1);
  }
  for (size_t align : {size_t{1}, size_t{16}, size_t{4096}, kHugePageSize}) {
    for (size_t x : {size_t{0}, size_t{1}, align - 1, align, align + 1, 7 * align, 7 * align + 1}) {
      size_t up = AlignUp(x, align), down = AlignDown(x, align);
      cr_expect(up % align == 0 && up >= x && up - x < align, "%zu up to %zu: %zu", x, align, up);
      cr_expect(down % align == 0 && down <= x && x - down < align);
    }
  }
}

Test(types, products) {
  size_t product = 1;
  cr_expect(not(MulOverflows(0, SIZE_MAX, &product)) && product == 0);
  cr_expect(not(MulOverflows(SIZE_MAX, 1, &product)) && product == SIZE_MAX);
  cr_expect(not(MulOverflows(size_t{1} << 32, (size_t{1} << 32) - 1, &product)));
  cr_expect(product == ((size_t{1} << 32) - 1) << 32);
  cr_expect(MulOverflows(size_t{1} << 32, size_t{1} << 32, &product));
  cr_expect(MulOverflows(SIZE_MAX, 2, &product));
}
