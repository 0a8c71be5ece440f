// SPDX-License-Identifier: Apache-2.0
// Free by the fast path, the slow path and other threads: the same slot comes free each time.

#include <criterion/criterion.h>

#include "heap/fastpath.h"
#include "heap/walk.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

bool IsAllocated(const void* p) {
  Object o;
  return FindObject(AddressOf(p), &o) && o.allocated;
}

}  // namespace

Test(free, each_way_frees_exactly_this_slot) {
  for (size_t size : SizesOfEachClass()) {
    std::vector<Block> blocks;
    for (uint64_t i = 0; i < 9; ++i) blocks.push_back(NewBlock(size, i));
    Free(blocks[1].p);
    FreeSlow(blocks[4].p, nullptr);
    OnThread([&] { Free(blocks[7].p); });
    for (size_t i = 0; i < 9; ++i) {
      bool freed = i == 1 || i == 4 || i == 7;
      cr_assert(IsAllocated(blocks[i].p) != freed, "size %zu, block %zu", size, i);
      if (!freed) DropBlock(blocks[i]);
    }
  }
}

// Free touches no byte of the object: the collector must not be misled, nor pages dirtied.
Test(free, contents_survive) {
  for (size_t size : SizesOfEachClass()) {
    Block b = NewBlock(size, 4);
    Free(b.p);
    CheckBlock(b);
  }
}

Test(free, a_remote_free_is_in_the_remote_bits_until_the_owner_looks) {
  void* p = Malloc(256);
  Span* s = FindSpan(AddressOf(p));
  uint32_t slot = static_cast<uint32_t>((AddressOf(p) - SpanAddr(s)) / 256);
  OnThread([&] { Free(p); });
  cr_expect(TestBit(s->remote_bits, slot) && not(TestBit(s->free_bits, slot)));
  cr_expect(HarvestRemote(s) == 1);
  cr_expect(not(TestBit(s->remote_bits, slot)) && TestBit(s->free_bits, slot));
  cr_expect(HarvestRemote(s) == 0);
}
