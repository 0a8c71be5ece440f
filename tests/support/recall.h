// SPDX-License-Identifier: Apache-2.0
// How many of the objects that a program dropped does the collector find? Measured among 50,000
// live objects full of random bytes, any of which could look like a pointer. Run with GOGC=off, so
// that only the forced collections happen and the objects dropped can be counted.
#ifndef UNDERGO_TESTS_RECALL_H_
#define UNDERGO_TESTS_RECALL_H_

#include "gc.h"

enum { kLiveObjects = 50000 };
typedef struct RandomBlock {
  struct RandomBlock* next;
  uint64_t words[29];
} RandomBlock;

__attribute__((unused)) static NOINLINE RandomBlock* MakeRandomBlocks(void) {
  Random r = {42};
  RandomBlock* list = NULL;
  for (int i = 0; i < kLiveObjects; i++) {
    RandomBlock* block = (RandomBlock*)malloc(sizeof *block);
    CHECK(block);
    block->next = list;
    for (int k = 0; k < 29; k++) block->words[k] = Next(&r);
    list = block;
  }
  return list;
}
__attribute__((unused)) static NOINLINE void CheckRandomBlocks(RandomBlock* list) {
  // The list is in reverse order of the stream, so it is turned first.
  RandomBlock* turned = NULL;
  int count = 0;
  while (list) {
    RandomBlock* next = list->next;
    list->next = turned;
    turned = list;
    list = next;
    count++;
  }
  CHECK_EQ(count, kLiveObjects);
  Random r = {42};
  for (; turned; turned = turned->next)
    for (int k = 0; k < 29; k++) CHECK_MSG(turned->words[k] == Next(&r), "a live object was lost");
}

static RandomBlock* random_blocks;

// Small objects that live on, so that those made after them lie in slices that were free until now.
// Slices that random words name are left free, but one of them may name a free slot of a slice that
// is in use already (one run in 1500), and whoever gets it keeps all that it points to: for a list,
// that is everything.
static void** fillers;
__attribute__((unused)) static NOINLINE void FillSpans(void) {
  enum { kMostBytes = 512, kSpanBytes = 256 << 10 };
  for (size_t bytes = 16; bytes <= kMostBytes; bytes += 16)
    for (size_t n = 0; n < kSpanBytes / bytes; n++) {
      void** filler = (void**)calloc(1, bytes);
      CHECK(filler);
      *filler = fillers;
      fillers = filler;
    }
}

// Runs `drop`, which must leave nothing that it allocated reachable, and wants 99 of 100 found.
__attribute__((unused)) static void MeasureRecall(const char* name, void (*drop)(void)) {
  const int works = GcWorks();
  random_blocks = MakeRandomBlocks();
  CollectOnce();
  CollectOnce();
  FillSpans();
  const uint64_t recalled_before = Recalled();
  const uint64_t objects_before = GcStats()->mallocs - GcStats()->frees;
  drop();
  Scrub();
  const uint64_t dropped = GcStats()->mallocs - GcStats()->frees - objects_before;
  for (int i = 0; i < 3; i++) CollectOnce();
  const uint64_t found = Recalled() - recalled_before;
  CheckRandomBlocks(random_blocks);
  if (works) {
    fprintf(stderr, "%s: %llu of %llu dropped objects found, %.2f %%\n", name,
            (unsigned long long)found, (unsigned long long)dropped,
            100.0 * (double)found / (double)dropped);
    CHECK_MSG(dropped >= 50000, "%s: only %llu objects were dropped", name,
              (unsigned long long)dropped);
    CHECK_MSG((double)found >= 0.99 * (double)dropped, "%s: too few", name);
  }
  puts("all right");
}

#endif  // UNDERGO_TESTS_RECALL_H_
