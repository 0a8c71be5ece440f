// SPDX-License-Identifier: Apache-2.0
// mlockall: what the library only reserves is neither locked nor filled, and the heap grows on.
// run: current
// run: name=later future
// run: name=allocator env=UNDERGO=gc=off,sched=off future
// run: name=collected env=GOGC=20 future
// timeout: 30
#include <sys/mman.h>
#include <sys/resource.h>

#include "check.h"

enum { kBlocks = 4000, kMiB = 1 << 20 };

static long StatusKb(const char* name) { return ProcField("/proc/self/status", name); }

int main(int argc, char** argv) {
  int future = argc > 1 && !strcmp(argv[1], "future");
  char* before = malloc(kMiB);
  // Who has the capability may lock whatever the limit says.
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
  if (mlockall(future ? MCL_CURRENT | MCL_FUTURE : MCL_CURRENT) != 0) {
    CHECK_MSG(limit.rlim_cur < 256u << 20, "mlockall: %s", strerror(errno));
    SKIP("RLIMIT_MEMLOCK is too low");
  }
  CHECK(StatusKb("VmLck") > 0 && StatusKb("VmLck") < (1024 << 10));
  CHECK_MSG(StatusKb("VmPTE") < 8 << 10, "%ld KB of page tables", StatusKb("VmPTE"));
  unsigned char there;
  CHECK_EQ(mincore((void*)(((uintptr_t)before + kMiB / 2) & ~4095ul), 4096, &there), 0);
  CHECK_EQ(there & 1, 1);  // was not touched

  static char* block[kBlocks];
  Random rng = {7};
  for (int round = 0; round < 5; round++) {
    for (int i = 0; i < kBlocks; i++) {
      free(block[i]);
      size_t n = Below(&rng, i % 100 == 0 ? 500000 : 5000) + 1;
      block[i] = malloc(n);
      CHECK(block[i] != NULL);
      memset(block[i], i, n);
    }
    for (int i = 0; i < kBlocks; i++) CHECK(*block[i] == (char)i);
  }
  free(before);
  CHECK_EQ(munlockall(), 0);
  CHECK_EQ(StatusKb("VmLck"), 0);
  puts("locked and unlocked");
  return 0;
}
