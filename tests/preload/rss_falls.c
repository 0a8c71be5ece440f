// SPDX-License-Identifier: Apache-2.0
// What the program freed goes back to the system: at once by malloc_trim, and by itself some
// seconds later when the program goes on allocating a little.
// native: no
// run: name=small 64
// run: name=medium pace=long 500
// run: name=pages pace=long 5000
// run: name=slices pace=long 100000
// run: name=large pace=long 3000000
// run: name=mixed 0
// run: name=allocator_small env=UNDERGO=gc=off,sched=off 64
// run: name=allocator_medium env=UNDERGO=gc=off,sched=off pace=long 500
// run: name=allocator_mixed env=UNDERGO=gc=off,sched=off 0
// timeout: 40
#include "check.h"

static const size_t kBytes = (size_t)300 << 20;
enum { kMax = 6000000 };
static void* block[kMax];

static size_t Allocate(size_t size) {
  Random r = {1};
  size_t n = 0;
  for (size_t total = 0; total < kBytes && n < kMax; n++) {
    size_t s = size ? size : 1 + Below(&r, Below(&r, 20) ? 1000 : 200000);
    CHECK((block[n] = malloc(s)) != NULL);
    memset(block[n], 1, s);
    total += s;
  }
  return n;
}
static void FreeAll(size_t n) {
  for (size_t i = 0; i < n; i++) free(block[i]);
}

int main(int argc, char** argv) {
  CHECK(argc > 1);
  size_t size = strtoull(argv[1], NULL, 10);
  // Right after a trim, with a collector too: its marks and its queue go as well.
  const long allowed = 20000;
  // The table itself is touched up to here; it is not the heap's.
  memset(block, 0, sizeof block);
  long base = RssKb();
  size_t n = Allocate(size);
  CHECK(RssKb() > base + 290000);
  FreeAll(n);
  malloc_trim(0);
  long left = RssKb() - base;
  CHECK_MSG(left < allowed, "%ld kB are left right after malloc_trim", left);

  n = Allocate(size);
  FreeAll(n);
  double start = Seconds();
  for (;;) {
    left = RssKb() - base;
    if (left < allowed + 35000) break;
    CHECK_MSG(Seconds() - start < 15, "%ld kB are left 15 s after the last free", left);
    SleepMs(50);
    for (int i = 0; i < 200; i++) {
      void* p[10];
      for (int k = 0; k < 10; k++) p[k] = malloc(64 + (size_t)k * 64);
      for (int k = 0; k < 10; k++) free(p[k]);
    }
  }
  puts("back");
  return 0;
}
