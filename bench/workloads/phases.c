// SPDX-License-Identifier: Apache-2.0
// A program with phases: each builds a working set of one size range, then frees all but a random
// tenth and goes on to another range. Shows whether memory moves between size classes.
//   phases [rounds] [megabytes per phase]
#include "bench.h"

typedef struct Object {
  struct Object* next;
  uint32_t size;
} Object;

static Object* Build(Rng* rng, Object* list, size_t bytes, unsigned low_bits, unsigned high_bits) {
  for (size_t total = 0; total < bytes;) {
    const uint32_t size = (uint32_t)RngSkewed(rng, low_bits, high_bits);
    Object* object = Must(malloc(size));
    Fill(object, size, size);
    object->next = list;
    object->size = size;
    list = object;
    total += size;
  }
  return list;
}

// Frees all but one in keep_one_in (none is kept for 0).
static Object* Thin(Rng* rng, Object* list, uint64_t keep_one_in, uint64_t* sum) {
  Object* kept = NULL;
  while (list != NULL) {
    Object* next = list->next;
    if (keep_one_in != 0 && RngBelow(rng, keep_one_in) == 0) {
      list->next = kept;
      kept = list;
    } else {
      *sum = Mix(*sum, list->size);
      free(list);
    }
    list = next;
  }
  return kept;
}

int main(int argc, char** argv) {
  const long rounds = Argument(argc, argv, 1, 4);
  const size_t bytes = (size_t)Argument(argc, argv, 2, 60) << 20;
  static const unsigned bits[][2] = {{4, 6}, {6, 8}, {8, 11}, {11, 14}, {5, 9}};
  Rng rng = RngSeed(23);
  uint64_t sum = 0;
  Object* kept[5] = {0};
  for (long round = 0; round < rounds; ++round) {
    for (int phase = 0; phase < 5; ++phase) {
      kept[phase] = Thin(&rng, kept[phase], 4, &sum);
      kept[phase] = Build(&rng, kept[phase], bytes, bits[phase][0], bits[phase][1]);
      kept[phase] = Thin(&rng, kept[phase], 10, &sum);
    }
  }
  for (int phase = 0; phase < 5; ++phase) Thin(&rng, kept[phase], 0, &sum);
  return Finish(sum);
}
