// SPDX-License-Identifier: Apache-2.0
// Buffers of 8 to 512 KiB, log-uniform, written completely, replaced at random: file caches, image
// tiles, network buffers.
//   medium [replacements] [slots]
#include "bench.h"

typedef struct {
  unsigned char* block;
  size_t size;
} Slot;

int main(int argc, char** argv) {
  const long replacements = Argument(argc, argv, 1, 120000);
  const long slots = Argument(argc, argv, 2, 500);
  Slot* table = Must(calloc((size_t)slots, sizeof(Slot)));
  Rng rng = RngSeed(10);
  uint64_t sum = 0;
  for (long i = 0; i < replacements; ++i) {
    Slot* slot = &table[RngBelow(&rng, (uint64_t)slots)];
    if (slot->block != NULL) {
      Expect(EndsAre(slot->block, slot->size, slot->size), "buffer contents");
      free(slot->block);
    }
    slot->size = RngSkewed(&rng, 13, 19);
    slot->block = Must(malloc(slot->size));
    Fill(slot->block, slot->size, slot->size);
    sum = Mix(sum, slot->size);
  }
  for (long i = 0; i < slots; ++i) free(table[i].block);
  free(table);
  return Finish(sum);
}
