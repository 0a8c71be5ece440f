// SPDX-License-Identifier: Apache-2.0
// Mappings and libraries come and go while collections run: mmap, munmap, mprotect, mremap,
// MADV_DONTNEED, MAP_FIXED over old ones, truncated files behind them, dlopen and dlclose.
// A root that vanishes while it is read may not crash the process nor lose what others hold.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=stopped env=GODEBUG=gcstoptheworld=1 1
// run: name=long pace=long 10
// timeout: 90
#include <stdatomic.h>
#include <sys/mman.h>

#include "gc.h"

enum { kPages = 64, kPage = 4096, kBytes = kPages * kPage };
static double end;

// One mapping with a pointer to a live list on each page; what happens to it is random.
static void* Maps(void* seed) {
  Random r = {(uint64_t)(uintptr_t)seed};
  while (Seconds() < end) {
    char* m = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    for (int i = 0; i < kPages; i++) *(Live**)(m + i * kPage) = MakeLive(5, 4);
    for (int step = 0; step < 30; step++) {
      size_t page = Below(&r, kPages);
      char* at = m + page * kPage;
      switch (Below(&r, 6)) {
        case 0:
          CHECK_EQ(mprotect(at, kPage, PROT_READ), 0);
          CheckLive(*(Live**)at, 5, 4);
          CHECK_EQ(mprotect(at, kPage, PROT_READ | PROT_WRITE), 0);
          break;
        case 1:
          CHECK_EQ(mprotect(at, kPage, PROT_NONE), 0);
          sched_yield();
          CHECK_EQ(mprotect(at, kPage, PROT_READ | PROT_WRITE), 0);
          CheckLive(*(Live**)at, 5, 4);
          break;
        case 2:
          CHECK_EQ(madvise(at, kPage, MADV_DONTNEED), 0);
          *(Live**)at = MakeLive(5, 4);
          break;
        case 3:
          CHECK(mmap(at, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                     0) == at);
          *(Live**)at = MakeLive(5, 4);
          break;
        case 4: {
          char* moved = mremap(m, kBytes, kBytes * 2, MREMAP_MAYMOVE);
          if (moved == MAP_FAILED) break;  // the steps above may have made several mappings of it
          CHECK_EQ(munmap(moved + kBytes, kBytes), 0);
          m = moved;
          break;
        }
        default: CheckLive(*(Live**)at, 5, 4);
      }
    }
    for (int i = 0; i < kPages; i++) CheckLive(*(Live**)(m + i * kPage), 5, 4);
    CHECK_EQ(munmap(m, kBytes), 0);
  }
  return NULL;
}

// The file behind a writable shared mapping becomes shorter: reading its pages is a SIGBUS then.
static void* Truncates(void* arg) {
  Live* volatile live = MakeLive(100, 6);
  while (Seconds() < end) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, kBytes) == 0);
    char* m = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m != MAP_FAILED);
    memset(m, 1, kBytes);
    CHECK_EQ(ftruncate(fd, kPage), 0);
    SleepMs(1);
    *(Live* volatile*)m = live;
    CHECK_EQ(munmap(m, kBytes), 0);
    close(fd);
    Leak(100);
    CheckLive(live, 100, 6);
  }
  return arg;
}

static void* Libraries(void* arg) {
  const char* path = PluginPath("keeper");
  while (Seconds() < end) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK_MSG(library, "dlopen: %s", dlerror());
    void** (*words_of)(int) = (void** (*)(int))dlsym(library, "KeeperWords");
    CHECK(words_of);
    for (int kind = 0; kind < 3; kind++) words_of(kind)[5] = MakeLive(50, 8);
    Leak(100);
    for (int kind = 0; kind < 3; kind++) CheckLive(words_of(kind)[5], 50, 8);
    CHECK_EQ(dlclose(library), 0);
  }
  return arg;
}

int main(int argc, char** argv) {
  end = Seconds() + (argc > 1 ? atof(argv[1]) : 1.5);
  Live* live = MakeLive(3000, 1);
  StartCollector();
  pthread_t t[4];
  CHECK_EQ(pthread_create(&t[0], NULL, Maps, (void*)1), 0);
  CHECK_EQ(pthread_create(&t[1], NULL, Maps, (void*)2), 0);
  CHECK_EQ(pthread_create(&t[2], NULL, Truncates, NULL), 0);
  CHECK_EQ(pthread_create(&t[3], NULL, Libraries, NULL), 0);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  StopCollector(5);
  CheckLive(live, 3000, 1);
  puts("all right");
  return 0;
}
