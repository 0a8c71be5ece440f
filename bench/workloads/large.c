// SPDX-License-Identifier: Apache-2.0
// Large blocks of 5 to 25 MB in a small table, replaced at random. Every page is written; one block
// in eight is written completely.
//   large [replacements] [slots]
#include "bench.h"

typedef struct {
  unsigned char* block;
  size_t size;
} Slot;

int main(int argc, char** argv) {
  const long replacements = Argument(argc, argv, 1, 200);
  const long slots = Argument(argc, argv, 2, 20);
  Slot* table = Must(calloc((size_t)slots, sizeof(Slot)));
  Rng rng = RngSeed(9);
  uint64_t sum = 0;
  for (long i = 0; i < replacements; ++i) {
    Slot* slot = &table[RngBelow(&rng, (uint64_t)slots)];
    if (slot->block != NULL) {
      Expect(slot->block[0] == 7 && slot->block[slot->size - 1] == 7, "large contents");
      free(slot->block);
    }
    slot->size = RngBetween(&rng, 5000000, 25000000);
    slot->block = Must(malloc(slot->size));
    if (RngBelow(&rng, 8) == 0) memset(slot->block, 7, slot->size);
    for (size_t at = 0; at < slot->size; at += 4096) slot->block[at] = 7;
    slot->block[slot->size - 1] = 7;
    sum = Mix(sum, slot->size);
  }
  for (long i = 0; i < slots; ++i) free(table[i].block);
  free(table);
  return Finish(sum);
}
