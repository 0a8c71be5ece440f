// SPDX-License-Identifier: Apache-2.0
// Large blocks: loops of 5 to 25 MB, growth by realloc to 512 MB, alignments of 2 MiB and more,
// sizes that no machine has; the memory comes back.
// run:
// timeout: 40
#include <pthread.h>

#include "check.h"

static void Mark(char* p, size_t n, size_t tag) {
  for (size_t i = 0; i < n; i += 4096) *(size_t*)(p + i) = tag + i;
  *(p + n - 1) = (char)tag;
}
static void Check(const char* p, size_t n, size_t tag) {
  for (size_t i = 0; i < n; i += 4096)
    CHECK_MSG(*(const size_t*)(p + i) == tag + i, "byte %zu of %zu is lost", i, n);
}

static void* Loops(void* seed) {
  Random r = {(uint64_t)(uintptr_t)seed};
  char* p[6] = {0};
  size_t n[6];
  for (int i = 0; i < 200; i++) {
    size_t k = Below(&r, 6);
    if (p[k]) {
      Check(p[k], n[k], k);
      free(p[k]);
    }
    n[k] = ((5 << 20) + Below(&r, 20 << 20)) & ~(size_t)7;
    CHECK((p[k] = malloc(n[k])) != NULL);
    Mark(p[k], n[k], k);
  }
  for (int k = 0; k < 6; k++) free(p[k]);
  return NULL;
}

int main(void) {
  pthread_t t[2];
  for (size_t i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, Loops, (void*)(i + 1)), 0);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);

  // Two buffers that grow in turn, so that neither always has room behind it.
  char *a = NULL, *b = NULL;
  size_t n = 0;
  for (size_t next = 100000; next <= (size_t)512 << 20; next = (next * 3 / 2) & ~(size_t)4095) {
    CHECK((a = realloc(a, next)) != NULL);
    if (n) Check(a, n & ~(size_t)4095, 1);
    Mark(a, next, 1);
    if (next < 100 << 20) {
      CHECK((b = realloc(b, next / 2)) != NULL);
      Mark(b, next / 2, 2);
    }
    n = next & ~(size_t)4095;
  }
  CHECK((a = realloc(a, 1000)) != NULL);
  CHECK(*(size_t*)a == 1);
  free(a);
  free(b);

  for (size_t align = 1 << 20; align <= (size_t)1 << 30; align *= 2) {
    char* p = memalign(align, 100000);
    CHECK_MSG(p && ((uintptr_t)p & (align - 1)) == 0, "memalign(%zu) gave %p", align, (void*)p);
    char* q = memalign(align, 5 << 20);
    CHECK_MSG(q && ((uintptr_t)q & (align - 1)) == 0, "memalign(%zu) gave %p", align, (void*)q);
    Mark(q, 5 << 20, align);
    p[0] = p[99999] = 1;
    CHECK(malloc_usable_size(p) >= 100000 && malloc_usable_size(q) >= 5 << 20);
    char* moved = realloc(q, 6 << 20);
    Check(moved, 5 << 20, align);
    free(moved);
    free(p);
  }
  for (int shift = 41; shift < 63; shift++) {
    errno = 0;
    CHECK_MSG(malloc(Opaque((size_t)1 << shift)) == NULL && errno == ENOMEM, "malloc(2^%d)", shift);
  }
  errno = 0;
  CHECK(malloc(Opaque((size_t)1 << 40)) == NULL && errno == ENOMEM);
  malloc_trim(0);
  long rss = RssKb();
  CHECK_MSG(rss < 60000, "%ld kB are left when all is free", rss);
  puts("large right");
  return 0;
}
