// SPDX-License-Identifier: Apache-2.0
// Batches: allocate n objects, free them last-in-first-out or first-in-first-out, with n cycling
// from a handful to two thousand and a new size mix for each batch.
//   batch lifo|fifo [objects in all]
#include "bench.h"

enum { kLargestBatch = 2000 };

int main(int argc, char** argv) {
  const int fifo = argc > 1 && strcmp(argv[1], "fifo") == 0;
  const long total = Argument(argc, argv, 2, 20000000);
  static const long lengths[] = {10, 100, 1000, 30, 300, 100, 1000, kLargestBatch};
  static unsigned char* blocks[kLargestBatch];
  Rng rng = RngSeed(19);
  uint64_t sum = 0;
  long done = 0;
  for (unsigned turn = 0; done < total; ++turn) {
    const long length = lengths[turn % 8];
    const size_t base = RngSkewed(&rng, 4, 8);
    for (long i = 0; i < length; ++i) {
      const size_t size = base + ((size_t)i & 3) * 16;
      blocks[i] = Must(malloc(size));
      Fill(blocks[i], size, (uint64_t)i);
    }
    for (long i = 0; i < length; ++i) {
      unsigned char* block = blocks[fifo ? i : length - 1 - i];
      sum += block[0];
      free(block);
    }
    sum = Mix(sum, base);
    done += length;
  }
  return Finish(sum);
}
