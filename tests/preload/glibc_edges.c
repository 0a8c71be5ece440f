// SPDX-License-Identifier: Apache-2.0
// Sizes at the edges, errno, alignment and aligned allocation: the answers of the GNU C library.
// run:
#include <limits.h>

#include "check.h"

static const size_t kHuge[] = {(size_t)PTRDIFF_MAX + 1,
                               SIZE_MAX,
                               SIZE_MAX - 1,
                               SIZE_MAX - 4096,
                               (size_t)PTRDIFF_MAX + 4097,
                               PTRDIFF_MAX,
                               (size_t)PTRDIFF_MAX - 4096};

static void HugeSizes(void) {
  for (size_t i = 0; i < sizeof kHuge / sizeof *kHuge; i++) {
    size_t n = Opaque(kHuge[i]);
    errno = 0;
    CHECK_MSG(malloc(n) == NULL && errno == ENOMEM, "malloc(%zu): errno %d", n, errno);
    errno = 0;
    CHECK_MSG(calloc(1, n) == NULL && errno == ENOMEM, "calloc(1, %zu): errno %d", n, errno);
    errno = 0;
    CHECK_MSG(calloc(n, 1) == NULL && errno == ENOMEM, "calloc(%zu, 1): errno %d", n, errno);
    char* p = malloc(40);
    Fill(p, 40, i);
    errno = 0;
    CHECK_MSG(realloc(p, n) == NULL && errno == ENOMEM, "realloc(p, %zu): errno %d", n, errno);
    CHECK(Verify(p, 40, i) == 40);
    free(p);
    errno = 0;
    CHECK_MSG(realloc(NULL, n) == NULL && errno == ENOMEM, "realloc(NULL, %zu)", n);
    errno = 0;
    CHECK_MSG(memalign(64, n) == NULL && errno == ENOMEM, "memalign(64, %zu): errno %d", n, errno);
    errno = 0;
    CHECK_MSG(aligned_alloc(4096, n) == NULL && errno == ENOMEM, "aligned_alloc(4096, %zu)", n);
    errno = 0;
    CHECK_MSG(valloc(n) == NULL && errno == ENOMEM, "valloc(%zu): errno %d", n, errno);
    errno = 0;
    CHECK_MSG(pvalloc(n) == NULL && errno == ENOMEM, "pvalloc(%zu): errno %d", n, errno);
    void* q = (void*)0x1234;
    CHECK_EQ(posix_memalign(&q, 64, n), ENOMEM);
    CHECK(q == (void*)0x1234);
  }
  // Far above what the machine can give, far below the limit of the type.
  errno = 0;
  CHECK(malloc(Opaque((size_t)1 << 46)) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(memalign(Opaque((size_t)1 << 46), 16) == NULL && errno == ENOMEM);
}

static void Products(void) {
  static const size_t pairs[][2] = {{SIZE_MAX, 2},
                                    {(size_t)1 << 32, (size_t)1 << 32},
                                    {((size_t)1 << 32) + 1, (size_t)1 << 32},
                                    {SIZE_MAX / 2 + 1, 2},
                                    {3, SIZE_MAX / 3 + 1},
                                    {SIZE_MAX, SIZE_MAX},
                                    {SIZE_MAX / 16 + 2, 16}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    size_t a = Opaque(pairs[i][0]), b = Opaque(pairs[i][1]);
    errno = 0;
    CHECK_MSG(calloc(a, b) == NULL && errno == ENOMEM, "calloc(%zu, %zu): errno %d", a, b, errno);
    char* p = malloc(100);
    Fill(p, 100, 7);
    errno = 0;
    CHECK_MSG(reallocarray(p, a, b) == NULL && errno == ENOMEM,
              "reallocarray(p, %zu, %zu): errno %d", a, b, errno);
    CHECK(Verify(p, 100, 7) == 100);
    errno = 0;
    CHECK(reallocarray(NULL, a, b) == NULL && errno == ENOMEM);
    free(p);
  }
  char* p = reallocarray(NULL, 10, 30);
  CHECK(p && malloc_usable_size(p) >= 300);
  Fill(p, 300, 1);
  p = reallocarray(p, 100, 30);
  CHECK(p && malloc_usable_size(p) >= 3000 && Verify(p, 300, 1) == 300);
  free(p);
}

static void ZeroSizes(void) {
  void* a[200];
  for (int i = 0; i < 200; i++) {
    a[i] = malloc(Opaque(0));
    CHECK(a[i] != NULL);
    CHECK(((uintptr_t)a[i] & 15) == 0);
    for (int j = 0; j < i; j++) CHECK(a[i] != a[j]);
  }
  for (int i = 0; i < 200; i++) free(a[i]);
  void* p = calloc(Opaque(0), 8);
  void* q = calloc(8, Opaque(0));
  void* r = realloc(NULL, Opaque(0));
  void* s = NULL;
  CHECK(posix_memalign(&s, 64, Opaque(0)) == 0 && s && ((uintptr_t)s & 63) == 0);
  void* t = memalign(4096, Opaque(0));
  CHECK(p && q && r && t && p != q && q != r);
  CHECK(((uintptr_t)t & 4095) == 0);
  free(p), free(q), free(r), free(s), free(t);
  free(NULL);
  CHECK_EQ(malloc_usable_size(NULL), 0);
}

static void ReallocZero(void) {
  static const size_t sizes[] = {1, 24, 1000, 40000, 300000, 3000000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    void* p = malloc(sizes[i]);
    CHECK(p);
    errno = 4711;
    void* q = realloc(p, Opaque(0));
    CHECK_MSG(q == NULL, "realloc(p, 0) of %zu bytes gave a block", sizes[i]);
    CHECK_EQ(errno, 4711);
    p = malloc(sizes[i]);
    CHECK(reallocarray(p, Opaque(0), 8) == NULL);
    p = malloc(sizes[i]);
    CHECK(reallocarray(p, 8, Opaque(0)) == NULL);
  }
  // realloc(p, 0) must free: a loop of it has to stay small.
  long before = RssKb();
  for (int i = 0; i < 2000; i++) {
    char* p = malloc(200000);
    CHECK(p);
    memset(p, 1, 200000);
    CHECK(realloc(p, Opaque(0)) == NULL);
  }
  CHECK_MSG(RssKb() - before < 100000, "realloc(p, 0) does not free: %ld kB", RssKb() - before);
}

static void ErrnoKept(void) {
  static const size_t sizes[] = {0, 1, 100, 5000, 70000, 200000, 2000000, 30000000, 200000000};
  for (int round = 0; round < 3; round++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      char* p = malloc(sizes[i]);
      CHECK(p);
      if (sizes[i]) p[0] = p[sizes[i] - 1] = 1;
      errno = 4711 + (int)i;
      free(p);
      CHECK_EQ(errno, 4711 + (int)i);
      // Success leaves errno alone as well; programs test errno after strtol without clearing it.
      errno = 99;
      p = malloc(sizes[i]);
      CHECK_EQ(errno, 99);
      free(p);
      CHECK_EQ(errno, 99);
    }
  errno = 5;
  free(NULL);
  CHECK_EQ(errno, 5);
}

static void PosixMemalign(void) {
  static const size_t bad[] = {0,    1,   2, 3, 4, 7, 9, 12, 24, 48, 100, SIZE_MAX, SIZE_MAX - 7,
                               4095, 4097};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    void* p = (void*)0xabcd;
    errno = 17;
    int rc = posix_memalign(&p, Opaque(bad[i]), 100);
    CHECK_MSG(rc == EINVAL, "posix_memalign(&p, %zu, 100) is %d", bad[i], rc);
    CHECK(p == (void*)0xabcd);
    CHECK_EQ(errno, 17);
  }
  for (size_t align = 8; align <= ((size_t)1 << 26); align *= 2)
    for (size_t size = 1; size < 200000; size = size * 3 + 1) {
      void* p = NULL;
      CHECK_EQ(posix_memalign(&p, align, size), 0);
      CHECK_MSG(((uintptr_t)p & (align - 1)) == 0, "posix_memalign(%zu, %zu) gave %p", align, size,
                p);
      CHECK(malloc_usable_size(p) >= size);
      Fill(p, size, align);
      CHECK(Verify(p, size, align) == size);
      free(p);
    }
}

static void OddAlignments(void) {
  static const size_t odd[][2] = {{0, 16},      {1, 16},      {2, 16},       {3, 16},
                                  {5, 16},      {15, 16},     {17, 32},      {24, 32},
                                  {33, 64},     {48, 64},     {65, 128},     {100, 128},
                                  {1000, 1024}, {4097, 8192}, {65535, 65536}};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
    for (size_t size = 1; size < 100000; size = size * 5 + 3) {
      char* p = memalign(Opaque(odd[i][0]), size);
      CHECK_MSG(p && ((uintptr_t)p & (odd[i][1] - 1)) == 0, "memalign(%zu, %zu) gave %p", odd[i][0],
                size, (void*)p);
      Fill(p, size, i);
      char* q = aligned_alloc(Opaque(odd[i][0]), size);
      CHECK_MSG(q && ((uintptr_t)q & (odd[i][1] - 1)) == 0, "aligned_alloc(%zu, %zu) gave %p",
                odd[i][0], size, (void*)q);
      Fill(q, size, i + 100);
      CHECK(Verify(p, size, i) == size && Verify(q, size, i + 100) == size);
      CHECK(malloc_usable_size(p) >= size && malloc_usable_size(q) >= size);
      free(p);
      free(q);
    }
  // An alignment above half of the address space has no power of two to round up to.
  errno = 0;
  CHECK(memalign(Opaque(((size_t)1 << 63) + 1), 16) == NULL);
  CHECK_EQ(errno, EINVAL);
  errno = 0;
  CHECK(aligned_alloc(Opaque(SIZE_MAX), 16) == NULL);
  CHECK_EQ(errno, EINVAL);
}

static void PageAligned(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (size_t size = 0; size < 100000; size = size * 2 + 1) {
    char* p = valloc(size);
    CHECK(p && ((uintptr_t)p & (page - 1)) == 0 && malloc_usable_size(p) >= size);
    char* q = pvalloc(size);
    CHECK(q && ((uintptr_t)q & (page - 1)) == 0);
    // pvalloc rounds the size up to whole pages.
    size_t rounded = (size + page - 1) & ~(page - 1);
    CHECK_MSG(malloc_usable_size(q) >= rounded, "pvalloc(%zu): usable %zu", size,
              malloc_usable_size(q));
    memset(p, 1, size);
    memset(q, 2, rounded);
    free(p);
    free(q);
  }
}

static void AlignmentAndUsable(void) {
  for (size_t size = 0; size <= 70000; size += size < 2100 ? 1 : 61) {
    char* p = malloc(size);
    CHECK(p);
    CHECK_MSG(((uintptr_t)p & 15) == 0, "malloc(%zu) gave %p", size, (void*)p);
    size_t usable = malloc_usable_size(p);
    CHECK_MSG(usable >= size, "malloc(%zu): usable %zu", size, usable);
    char* q = malloc(size);
    Fill(p, usable, size);
    Fill(q, malloc_usable_size(q), size + 1);
    CHECK(Verify(p, usable, size) == usable);
    CHECK_EQ(malloc_usable_size(p), usable);
    free(q);
    free(p);
    p = calloc(1, size);
    CHECK(p && ((uintptr_t)p & 15) == 0);
    free(p);
  }
}

int main(void) {
  HugeSizes();
  Products();
  ZeroSizes();
  ReallocZero();
  ErrnoKept();
  PosixMemalign();
  OddAlignments();
  PageAligned();
  AlignmentAndUsable();
  puts("edges right");
  return 0;
}
