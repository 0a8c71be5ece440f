// SPDX-License-Identifier: Apache-2.0
// The administrative functions give numbers that follow what the program allocated, and leave the
// heap intact; the C23 and compatibility names work where they exist.
// run:
#include "check.h"

extern void* __libc_malloc(size_t);
extern void __libc_free(void*);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
// Only programs linked long ago have it, by this version.
__asm__(".symver OldCfree, cfree@GLIBC_2.2.5");
extern void OldCfree(void*);

static void Mallinfo(void) {
  enum { kCount = 20000, kSize = 500 };
  static void* p[kCount];
  struct mallinfo2 before = mallinfo2();
  for (int i = 0; i < kCount; i++) {
    p[i] = malloc(kSize);
    memset(p[i], 1, kSize);
  }
  struct mallinfo2 during = mallinfo2();
  struct mallinfo old = mallinfo();
  for (int i = 0; i < kCount; i++) free(p[i]);
  struct mallinfo2 after = mallinfo2();

  size_t grew = during.uordblks - before.uordblks;
  CHECK_MSG(grew >= kCount * kSize && grew < kCount * kSize * 3 / 2, "uordblks grew by %zu", grew);
  CHECK_MSG(during.arena + during.hblkhd >= kCount * kSize, "arena %zu hblkhd %zu", during.arena,
            during.hblkhd);
  CHECK_MSG(after.uordblks + kCount * kSize <= during.uordblks + 100000,
            "uordblks stays at %zu of %zu", after.uordblks, during.uordblks);
  CHECK((unsigned)old.uordblks >= kCount * kSize);

  // A large block is counted, in whichever of the two fields.
  size_t large_before = after.uordblks + after.hblkhd;
  char* big = malloc(50 << 20);
  big[0] = 1;
  struct mallinfo2 with = mallinfo2();
  free(big);
  CHECK(with.uordblks + with.hblkhd >= large_before + (50 << 20));
  struct mallinfo2 without = mallinfo2();
  CHECK_MSG(without.uordblks + without.hblkhd < large_before + (10 << 20),
            "large block still counted");
}

// Well-formed: each opened element is closed in order, attributes are quoted, one root.
static void CheckXml(const char* text) {
  char stack[32][40];
  int depth = 0, roots = 0;
  const char* s = text;
  while ((s = strchr(s, '<')) != NULL) {
    const char* end = strchr(s, '>');
    CHECK_MSG(end != NULL, "unfinished tag: %.40s", s);
    int quotes = 0;
    for (const char* c = s; c < end; c++) quotes += *c == '"';
    CHECK_MSG(quotes % 2 == 0, "open quote: %.60s", s);
    char name[40];
    if (s[1] == '/') {
      CHECK(sscanf(s + 2, "%39[^ >]", name) == 1);
      CHECK_MSG(depth > 0 && !strcmp(stack[depth - 1], name), "</%s> closes <%s>", name,
                depth ? stack[depth - 1] : "nothing");
      depth--;
    } else if (s[1] != '?' && s[1] != '!') {
      CHECK(sscanf(s + 1, "%39[^ />]", name) == 1);
      if (depth == 0) roots++;
      if (end[-1] != '/') {
        CHECK(depth < 32);
        strcpy(stack[depth++], name);
      }
    }
    s = end;
  }
  CHECK_EQ(depth, 0);
  CHECK_EQ(roots, 1);
}

static void MallocInfo(void) {
  char* text = NULL;
  size_t size = 0;
  FILE* f = open_memstream(&text, &size);
  CHECK(f);
  CHECK_EQ(malloc_info(0, f), 0);
  CHECK_EQ(fclose(f), 0);
  CHECK_MSG(size > 60 && !strncmp(text, "<malloc version=", 16), "malloc_info: %.60s", text);
  CheckXml(text);
  free(text);
  f = tmpfile();
  CHECK(f);
  errno = 0;
  CHECK_EQ(malloc_info(1, f), EINVAL);
  CHECK_EQ(malloc_info(0, f), 0);
  CHECK(ftell(f) > 60);
  fclose(f);
}

static void Mallopt(void) {
  static const int options[] = {M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD,
                                M_ARENA_MAX,      M_ARENA_TEST,     M_MMAP_MAX};
  static const int values[] = {1 << 20, 1 << 20, 1 << 16, 4, 2, 1000};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    CHECK_MSG(mallopt(options[i], values[i]) == 1, "mallopt(%d, %d)", options[i], values[i]);
}

static void Aliases(void) {
  char* p = __libc_malloc(100);
  Fill(p, 100, 1);
  p = realloc(p, 5000);
  CHECK(Verify(p, 100, 1) == 100);
  p = __libc_realloc(p, 200000);
  CHECK(Verify(p, 100, 1) == 100);
  free(p);
  p = malloc(300);
  __libc_free(p);
  p = __libc_calloc(10, 10);
  for (int i = 0; i < 100; i++) CHECK_EQ(p[i], 0);
  free(p);
  p = __libc_memalign(1024, 77);
  CHECK(((uintptr_t)p & 1023) == 0);
  free(p);

  void (*sized)(void*, size_t) = (void (*)(void*, size_t))dlsym(RTLD_DEFAULT, "free_sized");
  void (*aligned)(void*, size_t, size_t) =
      (void (*)(void*, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
  if (UnderPreload()) CHECK(sized && aligned);
  for (int i = 0; i < 1000; i++) {
    if (sized) sized(malloc(123), 123), sized(NULL, 0), sized(malloc(3000000), 3000000);
    if (aligned) aligned(aligned_alloc(256, 512), 256, 512), aligned(NULL, 64, 1);
  }
  long before = RssKb();
  for (int i = 0; i < 20000; i++) {
    char* q = malloc(20000);
    memset(q, 1, 20000);
    OldCfree(q);
  }
  CHECK(RssKb() - before < 100000);
}

static void Trim(void) {
  enum { kCount = 100000 };
  static void* p[kCount];
  for (int i = 0; i < kCount; i++) {
    p[i] = malloc(1000);
    memset(p[i], 1, 1000);
  }
  long full = RssKb();
  for (int i = 0; i < kCount; i++) free(p[i]);
  int given = malloc_trim(0);
  CHECK(given == 0 || given == 1);
  long left = RssKb();
  CHECK_MSG(full - left > 80000, "malloc_trim: %ld kB before, %ld kB after", full, left);
  malloc_trim(SIZE_MAX / 2);
  for (int i = 0; i < kCount; i++) CHECK((p[i] = malloc(100)) != NULL);
  for (int i = 0; i < kCount; i++) free(p[i]);
}

static void Stats(void) {
  FILE* f = tmpfile();
  CHECK(f);
  fflush(stderr);
  int saved = dup(2);
  CHECK(saved >= 0 && dup2(fileno(f), 2) == 2);
  malloc_stats();
  fflush(stderr);
  CHECK(dup2(saved, 2) == 2);
  close(saved);
  char line[200];
  int lines = 0, digits = 0;
  rewind(f);
  while (fgets(line, sizeof line, f)) {
    lines++;
    digits += strpbrk(line, "0123456789") != NULL;
    if (UnderPreload()) CHECK_MSG(!strncmp(line, "undergo: ", 9), "malloc_stats: %s", line);
  }
  CHECK_MSG(lines > 0 && digits > 0, "malloc_stats printed %d lines", lines);
  fclose(f);
}

int main(void) {
  Mallinfo();
  MallocInfo();
  Mallopt();
  Aliases();
  Trim();
  Stats();
  puts("admin right");
  return 0;
}
