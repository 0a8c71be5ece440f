// SPDX-License-Identifier: Apache-2.0
// realloc keeps the data over every border of size classes in both directions, shrinks in place
// as the GNU C library does, and calloc gives zeroes on memory that was dirty before.
// run:
#include "check.h"

// realloc over each border once: sizes around all multiples of 16 up to 10 KiB, coarser above.
static void EveryBorder(void) {
  for (size_t size = 1; size < 600000;) {
    size_t step = size < 1200 ? 1 : size < 10000 ? 16 : size / 13;
    size_t other[] = {size + 1,     size + step,  size * 2, size * 9 / 8 + 1, size - size / 8,
                      size / 2 + 1, size / 3 + 1, 1,        size * 5};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
      char* p = malloc(size);
      CHECK(p);
      Fill(p, size, size);
      char* q = realloc(p, other[i]);
      CHECK(q);
      size_t kept = size < other[i] ? size : other[i];
      size_t bad = Verify(q, kept, size);
      CHECK_MSG(bad == kept, "realloc %zu -> %zu: byte %zu is lost", size, other[i], bad);
      CHECK(malloc_usable_size(q) >= other[i]);
      memset(q, 0x5a, malloc_usable_size(q));
      free(q);
    }
    size += step;
  }
}

// The whole usable size belongs to the program: realloc must carry all of it.
static void WholeUsable(void) {
  for (size_t size = 1; size < 300000; size = size * 7 / 5 + 1) {
    char* p = malloc(size);
    size_t usable = malloc_usable_size(p);
    Fill(p, usable, 3);
    char* q = realloc(p, usable * 2 + 100);
    CHECK(q);
    CHECK_MSG(Verify(q, usable, 3) == usable, "realloc of %zu lost the usable tail", size);
    free(q);
  }
}

static void GrowAndShrinkByOne(void) {
  char* p = NULL;
  for (size_t size = 1; size <= 9000; size++) {
    p = realloc(p, size);
    CHECK(p);
    p[size - 1] = (char)PatternByte(5, size - 1);
    if (size % 97 == 0) CHECK(Verify(p, size, 5) == size);
  }
  for (size_t size = 9000; size >= 1; size--) {
    p = realloc(p, size);
    CHECK(p);
    if (size % 97 == 0 || size < 40) CHECK(Verify(p, size, 5) == size);
  }
  free(p);
}

static void InPlace(void) {
  char* p = malloc(1000);
  CHECK(realloc(p, 990) == p);
  CHECK(realloc(p, 1000) == p);
  CHECK(realloc(p, malloc_usable_size(p)) == p);
  free(p);
  // glibc always shrinks in place; the library may move when less than half of the slot is left.
  p = malloc(1000);
  Fill(p, 1000, 9);
  CHECK(realloc(p, 600) == p);
  p = realloc(p, 10);
  CHECK(p && Verify(p, 10, 9) == 10);
  free(p);
  // A large block that shrinks must not be copied as a whole each time, nor keep its pages for
  // ever.
  char* big = malloc(64 << 20);
  CHECK(big);
  Fill(big, 64 << 20, 11);
  big = realloc(big, 1 << 20);
  CHECK(big && Verify(big, 1 << 20, 11) == 1 << 20);
  long rss = RssKb();
  CHECK_MSG(rss < 40000, "64 MiB shrunk to 1 MiB holds %ld kB", rss);
  free(big);
}

static void Zeroed(void) {
  static void* dirty[600];
  for (size_t size = 1; size < 700000; size = size < 1100 ? size + 13 : size * 9 / 8 + 1) {
    size_t count = size < 3000 ? 600 : size < 40000 ? 60 : 6;
    for (size_t i = 0; i < count; i++) {
      dirty[i] = malloc(size);
      CHECK(dirty[i]);
      memset(dirty[i], 0xff, malloc_usable_size(dirty[i]));
    }
    for (size_t i = 0; i < count; i++) free(dirty[i]);
    for (size_t i = 0; i < count; i++) {
      unsigned char* p = calloc(i % 2 ? 1 : size, i % 2 ? size : 1);
      CHECK(p);
      for (size_t k = 0; k < size; k++)
        CHECK_MSG(p[k] == 0, "calloc of %zu bytes: byte %zu is %u", size, k, p[k]);
      memset(p, 0xee, malloc_usable_size(p));
      dirty[i] = p;
    }
    for (size_t i = 0; i < count; i++) free(dirty[i]);
  }
  // Large: reuse after free within the purge delay, and at sizes that differ a little.
  for (int i = 0; i < 12; i++) {
    size_t size = ((size_t)2 << 20) + (size_t)i * 70001;
    char* p = malloc(size);
    CHECK(p);
    memset(p, 0xdd, size);
    free(p);
    p = calloc(size - 5000, 1);
    CHECK(p);
    for (size_t k = 0; k < size - 5000; k++)
      CHECK_MSG(p[k] == 0, "large calloc: byte %zu dirty", k);
    memset(p, 0xcc, size - 5000);
    free(p);
  }
}

int main(void) {
  EveryBorder();
  WholeUsable();
  GrowAndShrinkByOne();
  InPlace();
  Zeroed();
  puts("realloc right");
  return 0;
}
