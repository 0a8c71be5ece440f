// SPDX-License-Identifier: Apache-2.0
// The memory calls of the kernel begin to fail at a random moment: from then on each request gets
// memory or NULL with ENOMEM, contents stay intact and nothing crashes. One child for each seed.
// run: name=all 0 12 all
// run: name=mmap 100 6 mmap
// run: name=mprotect 200 8 mprotect
// run: name=madvise 300 4 madvise
// run: name=large_only 400 8 large
// run: name=munmap 500 4 munmap
// run: name=all_long pace=long 1000 100 all
// run: name=mprotect_long pace=long 2000 50 mprotect
// run: name=large_only_long pace=long 3000 40 large
// timeout: 180
#include <pthread.h>
#include <sys/wait.h>

#include "check.h"
#include "seccomp.h"

enum { kSlots = 1000, kSteps = 6000 };

typedef struct Block {
  unsigned char* p;
  size_t size;
  uint64_t tag;
} Block;

static size_t PickSize(Random* r) {
  size_t k = Below(r, 100);
  return 1 + (k < 80 ? Below(r, 600) : k < 97 ? Below(r, 40000) : Below(r, 3000000));
}

static void Step(Block* table, Random* r, unsigned long* refused) {
  Block* b = &table[Below(r, kSlots)];
  if (b->p && Below(r, 4) == 0) {
    size_t n = PickSize(r);
    errno = 0;
    unsigned char* q = Below(r, 2) ? realloc(b->p, n) : reallocarray(b->p, n, 1);
    if (!q) {
      CHECK_EQ(errno, ENOMEM);
      CHECK_MSG(Verify(b->p, b->size, b->tag) == b->size, "a failed realloc damaged the block");
      (*refused)++;
      return;
    }
    size_t kept = b->size < n ? b->size : n;
    CHECK(Verify(q, kept, b->tag) == kept);
    b->p = q;
    b->size = n;
    Fill(q, n, b->tag);
    return;
  }
  if (b->p) {
    CHECK_MSG(Verify(b->p, b->size, b->tag) == b->size, "a block of %zu was overwritten", b->size);
    errno = 123;
    free(b->p);
    CHECK_EQ(errno, 123);
    b->p = NULL;
    if (Below(r, 2)) return;
  }
  size_t n = PickSize(r);
  errno = 0;
  switch (Below(r, 6)) {
    case 0:
      b->p = calloc(n, 1);
      for (size_t i = 0; b->p && i < n; i++) CHECK_MSG(b->p[i] == 0, "dirty calloc of %zu", n);
      break;
    case 1:
      b->p = memalign((size_t)16 << Below(r, 12), n);
      break;
    case 2: {
      void* p = (void*)0x77;
      int rc = posix_memalign(&p, (size_t)16 << Below(r, 12), n);
      CHECK(rc == 0 || (rc == ENOMEM && p == (void*)0x77));
      if (rc) errno = ENOMEM;
      b->p = rc ? NULL : p;
      break;
    }
    default:
      b->p = malloc(n);
  }
  if (!b->p) {
    CHECK_EQ(errno, ENOMEM);
    (*refused)++;
    return;
  }
  b->size = n;
  b->tag = Next(r);
  Fill(b->p, n, b->tag);
}

static void* Thread(void* seed) {
  Block* table = malloc(kSlots * sizeof(Block));
  if (!table) return NULL;
  memset(table, 0, kSlots * sizeof(Block));
  Random r = {(uint64_t)(uintptr_t)seed};
  unsigned long refused = 0;
  for (int i = 0; i < kSteps; i++) Step(table, &r, &refused);
  for (int i = 0; i < kSlots; i++) free(table[i].p);
  free(table);
  return NULL;
}

static void Child(uint64_t seed, const char* what) {
  static Block table[kSlots];
  // brk is left alone: its result is an address, so that no filter can make it fail in order.
  static const int all[] = {SYS_mmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_munmap};
  static const int one_of[][1] = {{SYS_mmap}, {SYS_mprotect}, {SYS_madvise}, {SYS_munmap}};
  Random r = {seed * 77 + 5};
  unsigned long refused = 0;
  pthread_t t[2];
  const int threads = seed % 3 == 0 ? 2 : 0;
  for (int i = 0; i < threads; i++)
    CHECK_EQ(pthread_create(&t[i], NULL, Thread, (void*)(uintptr_t)(seed * 9 + (uint64_t)i)), 0);
  size_t start = seed % 7 == 0 ? 0 : Below(&r, kSteps);
  for (size_t i = 0; i < start; i++) Step(table, &r, &refused);
  CHECK_EQ(refused, 0);
  const uint32_t fails = SECCOMP_RET_ERRNO | ENOMEM;
  int rc;
  if (!strcmp(what, "all"))
    rc = FilterCalls(all, 5, fails, SECCOMP_RET_ALLOW, 0);
  else if (!strcmp(what, "large"))
    rc = FilterCalls(all, 5, fails, SECCOMP_RET_ALLOW, 1 << 20);
  else if (!strcmp(what, "mmap"))
    rc = FilterCalls(one_of[0], 1, fails, SECCOMP_RET_ALLOW, 0);
  else if (!strcmp(what, "mprotect"))
    rc = FilterCalls(one_of[1], 1, fails, SECCOMP_RET_ALLOW, 0);
  else if (!strcmp(what, "madvise"))
    rc = FilterCalls(one_of[2], 1, fails, SECCOMP_RET_ALLOW, 0);
  else
    rc = FilterCalls(one_of[3], 1, fails, SECCOMP_RET_ALLOW, 0);
  if (rc != 0) _exit(kSkipped);
  for (int i = 0; i < kSteps; i++) Step(table, &r, &refused);
  // Much more than can be had: the refusal must come in order.
  static void* hoard[4096];
  int n = 0;
  if (!strcmp(what, "all")) {
    while (n < 4096 && (hoard[n] = malloc(1 << 20)) != NULL) n++;
    for (int i = 0; i < n; i++) free(hoard[i]);
    // What was just given back serves again.
    if (n > 0) CHECK((hoard[0] = malloc(1 << 19)) != NULL);
  }
  for (int i = 0; i < threads; i++) pthread_join(t[i], NULL);
  for (int i = 0; i < kSlots; i++)
    if (table[i].p) {
      CHECK(Verify(table[i].p, table[i].size, table[i].tag) == table[i].size);
      free(table[i].p);
    }
  _exit(0);
}

int main(int argc, char** argv) {
  CHECK(argc == 4);
  uint64_t first = strtoull(argv[1], NULL, 10), count = strtoull(argv[2], NULL, 10);
  for (uint64_t seed = first; seed < first + count; seed++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) Child(seed, argv[3]);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped)
      SKIP("this system refuses seccomp filters");
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "seed %llu (%s): wait status %#x",
              (unsigned long long)seed, argv[3], status);
  }
  puts("failures right");
  return 0;
}
