// SPDX-License-Identifier: Apache-2.0
// Large blocks without pointers, full of random bytes, beside a small structure that is dropped
// again and again: what does the data cost at each collection? One block changes now and then.
//   buffers [megabytes of data] [megabytes dropped]
#include "gcbench.h"

enum { kBlock = 16 << 20, kMaxBlocks = 1024 };

typedef struct Item {
  struct Item* next;
  uint64_t value[3];
} Item;

static uint64_t* block[kMaxBlocks];

static NOINLINE uint64_t DropList(uint64_t length, uint64_t value) {
  Item* list = NULL;
  for (uint64_t i = 0; i < length; i++) {
    Item* item = Allocate(sizeof *item);
    item->next = list;
    item->value[0] = value + i;
    list = item;
  }
  uint64_t sum = 0;
  for (; list; list = list->next) sum += list->value[0];
  return sum;
}

int main(int argc, char** argv) {
  Start();
  const size_t blocks = (size_t)Argument(argc, argv, 1, 1024) / 16;
  const uint64_t rounds = (uint64_t)Argument(argc, argv, 2, 6144);
  Expect(blocks > 0 && blocks <= kMaxBlocks, "as many megabytes as there may be");
  Rng rng = RngSeed(8);
  for (size_t b = 0; b < blocks; b++) {
    block[b] = Allocate(kBlock);
    for (size_t i = 0; i < kBlock / 8; i++) block[b][i] = RngNext(&rng);
  }
  uint64_t sum = 0;
  const double start = NowSeconds(), cpu = CpuSeconds();
  for (uint64_t round = 0; round < rounds; round++) {
    sum = Mix(sum, DropList((1 << 20) / sizeof(Item), round));
    block[round % blocks][RngBelow(&rng, kBlock / 8)] = round;
  }
  Metric("work_s", NowSeconds() - start);
  Metric("work_cpu_s", CpuSeconds() - cpu);
  for (size_t b = 0; b < blocks; b++) sum = Mix(sum, block[b][kBlock / 16]);
  End();
  return Finish(sum);
}
