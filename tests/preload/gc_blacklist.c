// SPDX-License-Identifier: Apache-2.0
// Random data names addresses of the heap where nothing is yet. Objects that come later are not put
// there, or they would stay for ever. And a forced collection is one collection, not two.
#include "gc.h"

enum { kObjects = 200000, kBytes = 112 };

static void* object[kObjects];
static uint64_t* data;

static NOINLINE void Use(void) {
  for (int i = 0; i < kObjects; i++) {
    CHECK((object[i] = malloc(kBytes)));
    memset(object[i], 1, kBytes);
  }
}

static int Compare(const void* a, const void* b) {
  const uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return x < y ? -1 : x > y;
}

int main(void) {
  NEED_GC();
  const uint64_t before = GcStats()->num_gc;
  for (int i = 0; i < 20; i++) CHECK_EQ(undergo_gc(), 0);
  // A few may have begun by themselves.
  CHECK_MSG(GcStats()->num_gc - before < 30, "20 collections were %llu",
            (unsigned long long)(GcStats()->num_gc - before));

  // The data: places of objects that are gone, one of each slice of 64 KiB.
  Use();
  CHECK((data = calloc(kObjects, sizeof *data)));
  for (int i = 0; i < kObjects; i++) {
    data[i] = (uint64_t)object[i] >> 16 << 16 | 0x1230;
    free(object[i]);
    object[i] = NULL;
  }
  Scrub();
  CHECK_EQ(undergo_gc(), 0);
  CHECK_EQ(undergo_gc(), 0);
  // Other sizes than before: spans that were kept are no measure.
  uint64_t named = 0;
  qsort(data, kObjects, sizeof *data, Compare);
  for (int i = 0; i < kObjects; i++) {
    CHECK((object[i] = malloc(kBytes * 2)));
    const uint64_t key = (uint64_t)object[i] >> 16 << 16 | 0x1230;
    named += bsearch(&key, data, kObjects, sizeof *data, Compare) != NULL;
  }
  CHECK_MSG(named * 50 < kObjects, "%llu of %d objects lie where data points to",
            (unsigned long long)named, kObjects);
  puts("ok");
  return 0;
}
