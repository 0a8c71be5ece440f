// SPDX-License-Identifier: Apache-2.0
// calloc everywhere: records of 16 bytes to 8 KiB that are checked to be zero and then written, and
// now and then a table of 1 to 4 MiB of which only a part is used.
//   zeroed [records] [live]
#include "bench.h"

typedef struct {
  unsigned char* block;
  size_t size;
} Slot;

static int IsZero(const unsigned char* block, size_t size) {
  return block[0] == 0 && memcmp(block, block + 1, size - 1) == 0;
}

int main(int argc, char** argv) {
  const long records = Argument(argc, argv, 1, 8000000);
  const long live = Argument(argc, argv, 2, 8000);
  Slot* table = Must(calloc((size_t)live, sizeof(Slot)));
  Rng rng = RngSeed(15);
  uint64_t sum = 0;
  for (long i = 0; i < records; ++i) {
    Slot* slot = &table[RngBelow(&rng, (uint64_t)live)];
    free(slot->block);
    slot->size = RngSkewed(&rng, 4, RngBelow(&rng, 8) == 0 ? 13 : 9);
    slot->block = Must(calloc(1, slot->size));
    Expect(IsZero(slot->block, slot->size), "calloc gives zeros");
    Fill(slot->block, slot->size, 0xa5);
    sum = Mix(sum, slot->size);
    if (i % 8192 != 0) continue;
    const size_t entries = RngSkewed(&rng, 17, 19);
    uint64_t* sparse = Must(calloc(entries, sizeof(uint64_t)));
    for (int k = 0; k < 200; ++k) {
      uint64_t* entry = &sparse[RngBelow(&rng, entries)];
      sum += *entry;
      *entry += (uint64_t)k;
    }
    free(sparse);
  }
  for (long i = 0; i < live; ++i) free(table[i].block);
  free(table);
  return Finish(sum);
}
