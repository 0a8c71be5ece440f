// SPDX-License-Identifier: Apache-2.0
// Under a system call filter: only the memory calls and futex may be needed after the start, and no
// other verdict than success of those may be needed for survival. The C library's malloc counts
// processors when a thread allocates first, and does not pass these two.
// run: name=kill native=no kill
// run: name=eperm eperm
// run: name=enosys native=no enosys
// run: name=no_madvise no_madvise
// run: name=no_mprotect no_mprotect
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "check.h"
#include "seccomp.h"

static atomic_int ready, go, done;

// Returns how many requests got memory; contents are verified, refusals must carry ENOMEM.
static int Work(uint64_t seed) {
  enum { kSlots = 300 };
  Random r = {seed};
  unsigned char* p[kSlots] = {0};
  size_t n[kSlots];
  int served = 0;
  for (int i = 0; i < 30000; i++) {
    size_t k = Below(&r, kSlots);
    if (p[k]) {
      CHECK(Verify(p[k], n[k], seed + k) == n[k]);
      free(p[k]);
    }
    n[k] = 1 + Below(&r, Below(&r, 300) ? 900 : 2000000);
    errno = 0;
    p[k] = Below(&r, 5) ? malloc(n[k]) : aligned_alloc(4096, n[k]);
    if (p[k]) {
      served++;
      Fill(p[k], n[k], seed + k);
      if (Below(&r, 10) == 0) {
        void* q = realloc(p[k], n[k] * 2);
        if (q) p[k] = q;
      }
    } else {
      CHECK_EQ(errno, ENOMEM);
    }
  }
  for (int k = 0; k < kSlots; k++) free(p[k]);
  malloc_trim(0);
  return served;
}
static void* Waiting(void* arg) {
  ready++;
  while (!go) sched_yield();
  CHECK(Work((uint64_t)(uintptr_t)arg) > 0);
  done++;
  while (done < 3) sched_yield();
  // Ends by exit_group of the main thread: the end of a thread needs more calls than a heap does.
  for (;;) pause();
  return NULL;
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "kill";
  pthread_t t[2];
  for (size_t i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, Waiting, (void*)(i + 1)), 0);
  static const int allowed[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_futex,
                                // What the test itself and the C library's malloc need besides.
                                SYS_brk, SYS_mremap, SYS_read, SYS_write, SYS_exit, SYS_exit_group,
                                SYS_sched_yield, SYS_pause, SYS_rt_sigreturn, SYS_newfstatat};
  enum { kAllowed = sizeof allowed / sizeof *allowed };
  static const int madvise_only[] = {SYS_madvise}, mprotect_only[] = {SYS_mprotect};
  // The start of a thread needs more calls than a heap does.
  while (ready < 2) sched_yield();
  puts("filtered");
  fflush(stdout);
  int rc;
  if (!strcmp(mode, "no_madvise"))
    rc = FilterCalls(madvise_only, 1, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW, 0);
  else if (!strcmp(mode, "no_mprotect"))
    rc = FilterCalls(mprotect_only, 1, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW, 0);
  else
    rc = FilterCalls(allowed, kAllowed, SECCOMP_RET_ALLOW,
                     !strcmp(mode, "eperm")    ? SECCOMP_RET_ERRNO | EPERM
                     : !strcmp(mode, "enosys") ? SECCOMP_RET_ERRNO | ENOSYS
                                               : SECCOMP_RET_KILL_PROCESS,
                     0);
  if (rc != 0) SKIP("this system refuses seccomp filters");
  go = 1;
  int served = Work(9);
  // Where the calls it needs are allowed, everything must be served.
  if (!strcmp(mode, "no_mprotect"))
    CHECK(served > 0);
  else
    CHECK_EQ(served, 30000);
  done++;
  while (done < 3) sched_yield();
  _exit(0);
}
