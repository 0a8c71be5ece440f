// SPDX-License-Identifier: Apache-2.0
// The fast path: which slot it takes, what it writes, and the table of its restartable sequences.

#include "heap/fastpath.h"

#include <criterion/criterion.h>

#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

extern "C" {
extern const int32_t __start_undergo_restart[];
extern const int32_t __stop_undergo_restart[];
}

Test(fastpath, takes_the_lowest_bit) {
  Span span = {};
  for (uint32_t bit = 0; bit < 64; ++bit) {
    uint64_t above = bit == 63 ? 0 : 0xaaaaaaaaaaaaaaaa << (bit + 1);
    Cursor c = {above | uint64_t{1} << bit, 0x10000, 48,
                reinterpret_cast<uint64_t>(&span) | Cursor::kZeroed};
    TakenSlot t = TakeLowestBit<true>(&c);
    cr_assert(c.bits == above, "bit %u: %#zx left", bit, c.bits);
    cr_assert(AddressOf(t.address) == 0x10000 + bit * 48u);
    cr_assert((t.owner & Cursor::kZeroed) != 0 && c.span() == &span);
  }
  Cursor empty = {};
  cr_expect(TakeLowestBit<false>(&empty).bits == 0 && empty.bits == 0);
}

// Slots go up in address: neighbours in time are neighbours in memory.
Test(fastpath, neighbours) {
  for (size_t size : {16, 64, 1000}) {
    size_t step = kClasses[ClassOf(size)].size;
    auto* last = static_cast<char*>(Malloc(size));
    while (CountBits(thread_words.mcache->cursors[ClassOf(size)].bits) != 0) {
      auto* p = static_cast<char*>(Malloc(size));
      cr_assert(p == last + step);
      last = p;
    }
  }
}

// A freed slot is handed out again within one turn of the cursor over the span.
Test(fastpath, reuse) {
  void* first = Malloc(4000);
  for (int i = 0; i < 200; ++i) {
    void* p = Malloc(4000);
    cr_assert(FindSpan(AddressOf(p)) == FindSpan(AddressOf(first)), "round %d", i);
    Free(p);
  }
}

Test(fastpath, restart_table) {
  size_t entries = 0;
  for (const int32_t* p = __start_undergo_restart; p < __stop_undergo_restart; p += 2) {
    Addr start = reinterpret_cast<Addr>(p) + static_cast<Addr>(intptr_t{p[0]});
    Addr end = reinterpret_cast<Addr>(p + 1) + static_cast<Addr>(intptr_t{p[1]});
    cr_assert(start < end && end - start < 48, "entry %zu: %#zx to %#zx", entries, start, end);
    ++entries;
  }
  cr_expect(entries >= 3, "%zu entries", entries);
}
