// SPDX-License-Identifier: Apache-2.0
// A steady leak: so many megabytes live, all of them read in turn, and so many megabytes each
// second allocated and dropped. Prints what the process holds (resident), highest and last.
//   leak [live megabytes] [megabytes each second] [seconds]
#include <time.h>
#include <unistd.h>

#include "gcbench.h"

typedef struct Block {
  struct Block* next;
  uint32_t size, tag;
} Block;

static Block* live;

static NOINLINE Block* New(Rng* rng) {
  const size_t size = RngSkewed(rng, 5, 10);
  Block* block = Allocate(size);
  Fill(block, size, 7);
  block->next = NULL;
  block->size = (uint32_t)size;
  block->tag = (uint32_t)size * 3;
  return block;
}

static double ResidentMegabytes(void) {
  long all = 0, resident = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &all, &resident) != 2) resident = 0;
  if (file != NULL) fclose(file);
  return (double)resident * 4096 / (1 << 20);
}

// A small structure, dropped at the end: a short list, as parsers and requests make them.
static NOINLINE size_t Drop(Rng* rng) {
  Block* list = NULL;
  size_t bytes = 0;
  for (int i = 0; i < 20; i++) {
    Block* block = New(rng);
    block->next = list;
    list = block;
    bytes += block->size;
  }
  return bytes;
}

int main(int argc, char** argv) {
  Start();
  const double megabytes = (double)Argument(argc, argv, 1, 100);
  const double rate = (double)Argument(argc, argv, 2, 100);
  const double seconds = (double)Argument(argc, argv, 3, 15);
  Rng rng = RngSeed(4);
  uint64_t count = 0;
  for (double made = 0; made < megabytes * (1 << 20); count++) {
    Block* block = New(&rng);
    made += block->size;
    block->next = live;
    live = block;
  }
  const double start = NowSeconds();
  double dropped = 0, highest = 0, resident = 0, measured = start;
  const Block* cursor = live;
  for (;;) {
    const double now = NowSeconds();
    if (now >= start + seconds) break;
    // In slices of 5 ms, so that the rate is steady; whoever comes late catches up.
    while (dropped < (now - start) * rate * (1 << 20)) {
      dropped += (double)Drop(&rng);
      for (int i = 0; i < 20; i++) {
        Expect(cursor->tag == cursor->size * 3, "a live block");
        cursor = cursor->next != NULL ? cursor->next : live;
      }
    }
    if (now > measured + 0.02) {
      resident = ResidentMegabytes();
      if (resident > highest) highest = resident;
      measured = now;
    }
    struct timespec pause = {0, 5000000};
    nanosleep(&pause, NULL);
  }
  Metric("dropped_mb_per_s", dropped / (1 << 20) / (NowSeconds() - start));
  Metric("rss_highest_mb", highest);
  Metric("rss_last_mb", resident);
  uint64_t length = 0;
  for (const Block* block = live; block != NULL; block = block->next, length++)
    Expect(block->tag == block->size * 3, "a live block");
  Expect(length == count, "the list has its length");
  End();
  return Finish(count);
}
