// SPDX-License-Identifier: Apache-2.0
// Size classes: each size and each offset, exhaustively.

#include "heap/size_class.h"

#include <criterion/criterion.h>

using namespace undergo;
using namespace undergo::heap;

Test(size_class, every_size_gets_the_smallest_class_that_fits) {
  for (size_t size = 0; size <= kMaxSmallSize; ++size) {
    uint32_t cls = ClassOf(size);
    cr_assert(cls < kNumClasses);
    cr_assert(kClasses[cls].size >= size, "size %zu: class of %u", size, kClasses[cls].size);
    cr_assert(cls == 0 || kClasses[cls - 1].size < size, "size %zu: a smaller class fits", size);
  }
}

Test(size_class, waste_is_an_eighth_at_most) {
  for (size_t size = 1; size <= kMaxSmallSize; ++size) {
    size_t waste = kClasses[ClassOf(size)].size - size;
    cr_assert(size <= 128 ? waste < 16 : waste * 8 < size, "size %zu wastes %zu", size, waste);
  }
}

Test(size_class, shape_of_spans) {
  for (uint32_t cls = 0; cls < kNumClasses; ++cls) {
    const SizeClass& c = kClasses[cls];
    cr_expect(c.size % kGranule == 0);
    cr_expect(cls == 0 || c.size > kClasses[cls - 1].size);
    cr_expect(c.slots >= 4 && c.slots <= kMaxSlots, "class of %u: %u slots", c.size, c.slots);
    size_t bytes = c.slices * kSliceSize;
    cr_expect(size_t{c.slots} * c.size <= bytes && bytes - size_t{c.slots} * c.size < c.size,
              "class of %u: not as many slots as there is room for", c.size);
    cr_expect(c.words == (c.slots + 63) / 64 && c.words <= kMaxWords);
    cr_expect(c.batch >= 1 && c.batch <= 64 && c.batch <= c.slots);
    cr_expect(c.revisit >= 1 && c.revisit <= c.slots);
    cr_expect(c.notify >= 1 && c.notify <= 64 && c.notify <= c.slots);
    cr_expect(c.slices == 1 || c.size > kMaxOneSliceSize);
  }
}

// A slot's number by multiplication, and whether an address is the start of a slot: fastpath.h.
Test(size_class, magic_numbers_divide_exactly) {
  for (const SizeClass& c : kClasses) {
    if (c.slices != 1) continue;
    for (uint64_t offset = 0; offset < kSliceSize; ++offset) {
      uint64_t product = offset * c.magic;
      cr_assert(product >> 32 == offset / c.size, "class of %u, offset %zu", c.size, offset);
      cr_assert((static_cast<uint32_t>(product) < c.magic) == (offset % c.size == 0),
                "class of %u, offset %zu", c.size, offset);
    }
  }
}

Test(size_class, each_power_of_two_is_a_class) {
  for (size_t size = kGranule; size <= kMaxSmallSize; size *= 2) {
    cr_expect(kClasses[ClassOf(size)].size == size, "%zu", size);
  }
}
