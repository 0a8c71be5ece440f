// SPDX-License-Identifier: Apache-2.0
// Under limits of the address space: allocate until NULL with ENOMEM, free, allocate again; much of
// the limit must be usable, and enough be left to the program's own mmap.
// run: name=as_60 as 60 40
// run: name=allocator_as_60 env=UNDERGO=gc=off,sched=off as 60 40
// run: name=as_256 as 256 60
// run: name=as_1024 as 1024 70
// run: name=as_8192 pace=long as 8192 10
// run: name=data_64 data 64 40
// run: name=allocator_data_64 env=UNDERGO=gc=off,sched=off data 64 40
// run: name=data_512 pace=long data 512 60
// run: name=own_mmap own_mmap 1024 60
// run: name=threads threads 512 0
// run: name=lowered lowered 0 0
// timeout: 40
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "check.h"

enum { kMax = 1 << 20 };
static void* block[kMax];

static size_t Exhaust(size_t size, size_t enough) {
  size_t n = 0, total = 0;
  errno = 0;
  while (n < kMax && total < enough && (block[n] = malloc(size)) != NULL) {
    memset(block[n], (int)n, size < 4096 ? size : 4096);
    n++;
    total += size;
    errno = 0;
  }
  if (n < kMax && total < enough) CHECK_EQ(errno, ENOMEM);
  for (size_t i = 0; i < n; i++) CHECK(*(unsigned char*)block[i] == (i & 0xff));
  for (size_t i = 0; i < n; i++) free(block[i]);
  return total;
}

static void* ThreadMain(void* arg) {
  (void)arg;
  for (int i = 0; i < 3000; i++) {
    size_t n = (size_t)(i % 100) * 40 + 1;
    char* p = malloc(n);
    if (p) p[0] = p[n - 1] = 1;
    free(p);
  }
  return NULL;
}

static void Run(const char* mode, size_t limit, size_t percent) {
  if (!strcmp(mode, "own_mmap")) {
    void* p = mmap(NULL, limit / 100 * percent, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    CHECK_MSG(p != MAP_FAILED, "the program cannot map %zu %% of its limit", percent);
    size_t got = Exhaust(1 << 20, limit);
    CHECK_MSG(got >= limit / 100 * 15, "only %zu MiB for malloc beside it", got >> 20);
    munmap(p, limit / 100 * percent);
    return;
  }
  if (!strcmp(mode, "threads")) {
    // Small stacks, so that they are not what exhausts the limit.
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    pthread_t t[200];
    for (int i = 0; i < 200; i++) CHECK_EQ(pthread_create(&t[i], &attr, ThreadMain, NULL), 0);
    for (int i = 0; i < 200; i++) pthread_join(t[i], NULL);
    Exhaust(1 << 20, limit);
    return;
  }
  static const size_t sizes[] = {1 << 20, 1000, 100000, 5 << 20, 4096};
  size_t first = 0;
  for (int round = 0; round < 2; round++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      // A bound in bytes keeps the larger limits quick.
      size_t got = Exhaust(sizes[i], (size_t)512 << 20);
      if (i == 0 && round == 0) first = got;
      size_t wanted = limit / 100 * percent;
      if (wanted > (size_t)512 << 20) wanted = (size_t)512 << 20;
      if (wanted > kMax * sizes[i] / 2) wanted = kMax * sizes[i] / 2;
      CHECK_MSG(got >= wanted, "round %d: blocks of %zu bytes: only %zu MiB of %zu", round,
                sizes[i], got >> 20, limit >> 20);
      if (i == 0)
        CHECK_MSG(got >= first / 10 * 8, "memory was lost: %zu MiB first, %zu later", first >> 20,
                  got >> 20);
    }
}

int main(int argc, char** argv) {
  CHECK(argc >= 4);
  size_t limit = strtoull(argv[2], NULL, 10) << 20, percent = strtoull(argv[3], NULL, 10);
  if (!strcmp(argv[1], "lowered")) {
    free(malloc(100));
    size_t now = (size_t)ProcField("/proc/self/status", "VmSize") << 10;
    // Below what is mapped already: nothing new may be mapped from here on.
    struct rlimit low = {now / 2, now / 2};
    CHECK_EQ(setrlimit(RLIMIT_AS, &low), 0);
    Exhaust(1 << 20, 512 << 20);
    Exhaust(100, 20 << 20);
    for (int i = 0; i < 100000; i++) {
      char* p = malloc((size_t)i % 5000 + 1);
      if (p)
        p[0] = 1;
      else
        CHECK_EQ(errno, ENOMEM);
      free(p);
    }
    puts("limits right");
    return 0;
  }
  if (argc == 4) {
    struct rlimit r = {limit, limit};
    CHECK_EQ(setrlimit(!strcmp(argv[1], "data") ? RLIMIT_DATA : RLIMIT_AS, &r), 0);
    execl("/proc/self/exe", "rlimit_as", argv[1], argv[2], argv[3], "limited", (char*)NULL);
    CHECK_MSG(0, "exec: %s", strerror(errno));
  }
  Run(argv[1], limit, percent);
  puts("limits right");
  return 0;
}
