// SPDX-License-Identifier: Apache-2.0
// One thread, a large live set of random sizes, random replacement: the steady state of a big
// single-threaded server.
//   churn [replacements] [live objects]
#include "bench.h"

typedef struct {
  unsigned char* block;
  uint32_t size;
} Slot;

int main(int argc, char** argv) {
  const long replacements = Argument(argc, argv, 1, 3500000);
  const long live = Argument(argc, argv, 2, 300000);
  Slot* table = Must(calloc((size_t)live, sizeof(Slot)));
  Rng rng = RngSeed(12);
  uint64_t sum = 0;
  for (long i = 0; i < replacements + live; ++i) {
    const uint64_t index = i < live ? (uint64_t)i : RngBelow(&rng, (uint64_t)live);
    Slot* slot = &table[index];
    if (slot->block != NULL) {
      Expect(slot->block[0] == (slot->size & 0xff), "object contents");
      free(slot->block);
    }
    // Three in four below 256 bytes, the rest up to 4 KiB.
    slot->size = (uint32_t)RngSkewed(&rng, 4, RngBelow(&rng, 4) == 0 ? 12 : 8);
    slot->block = Must(malloc(slot->size));
    Fill(slot->block, slot->size, slot->size);
    sum = Mix(sum, slot->size);
  }
  for (long i = 0; i < live; ++i) free(table[i].block);
  free(table);
  return Finish(sum);
}
