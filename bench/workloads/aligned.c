// SPDX-License-Identifier: Apache-2.0
// Aligned allocation by its four spellings: vectors for SIMD, cache-line objects, page buffers.
//   aligned [allocations] [live]
#include <malloc.h>

#include "bench.h"

typedef struct {
  unsigned char* block;
  size_t size;
} Slot;

static void* Aligned(Rng* rng, size_t* size) {
  // Two cache lines at most, one in sixteen a page. 256 to 1024 are left out because a peer in the
  // comparison (mimalloc 2.0.9) gets some of them wrong; the tests cover them.
  const size_t alignment = RngBelow(rng, 16) == 0 ? 4096 : (size_t)16 << RngBelow(rng, 4);
  void* block = NULL;
  switch (RngBelow(rng, 4)) {
    case 0: Expect(posix_memalign(&block, alignment, *size) == 0, "posix_memalign"); break;
    case 1: block = Must(memalign(alignment, *size)); break;
    case 2: block = Must(malloc(*size)); return block;
    default:
      *size = (*size + alignment - 1) & ~(alignment - 1);
      block = Must(aligned_alloc(alignment, *size));
  }
  Expect(((uintptr_t)block & (alignment - 1)) == 0, "alignment");
  return block;
}

int main(int argc, char** argv) {
  const long allocations = Argument(argc, argv, 1, 7000000);
  const long live = Argument(argc, argv, 2, 6000);
  Slot* table = Must(calloc((size_t)live, sizeof(Slot)));
  Rng rng = RngSeed(16);
  uint64_t sum = 0;
  for (long i = 0; i < allocations; ++i) {
    Slot* slot = &table[RngBelow(&rng, (uint64_t)live)];
    if (slot->block != NULL) {
      Expect(EndsAre(slot->block, slot->size, slot->size), "aligned contents");
      free(slot->block);
    }
    slot->size = RngSkewed(&rng, 4, RngBelow(&rng, 8) == 0 ? 13 : 9);
    slot->block = Aligned(&rng, &slot->size);
    Fill(slot->block, slot->size, slot->size);
    sum = Mix(sum, slot->size);
  }
  for (long i = 0; i < live; ++i) free(table[i].block);
  free(table);
  return Finish(sum);
}
