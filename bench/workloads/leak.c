// SPDX-License-Identifier: Apache-2.0
// Small blocks that are never freed: a list that only grows until the given number of megabytes.
//   leak [megabytes]
#include "bench.h"

typedef struct Entry {
  struct Entry* previous;
  uint32_t size;
} Entry;

int main(int argc, char** argv) {
  const size_t limit = (size_t)Argument(argc, argv, 1, 350) << 20;
  Rng rng = RngSeed(11);
  Entry* newest = NULL;
  uint64_t sum = 0;
  for (size_t total = 0; total < limit;) {
    const uint32_t size = (uint32_t)RngSkewed(&rng, 4, 8);
    Entry* entry = Must(malloc(size));
    Fill(entry, size, 1);
    entry->previous = newest;
    entry->size = size;
    newest = entry;
    total += size;
  }
  for (const Entry* entry = newest; entry != NULL; entry = entry->previous) sum += entry->size;
  return Finish(sum);
}
