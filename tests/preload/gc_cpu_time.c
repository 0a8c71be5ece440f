// SPDX-License-Identifier: Apache-2.0
// The collector's share of the CPUs is a share, also where threads that allocate help to mark and
// the scheduler moves them from one kernel thread, with a clock of its own, to another meanwhile.
// native: no
// run: pace=long
// run: name=preempt pace=long env=UNDERGO=stress=preempt
// timeout: 60
#include <time.h>

#include "gc.h"

enum { kThreads = 16, kKept = 16000, kRounds = 400 };
static volatile int stop;

// Keeps what the marker has to do in step with what is dropped.
static void* Work(void* arg) {
  void** kept = calloc(kKept, sizeof *kept);
  CHECK(kept);
  for (unsigned i = (unsigned)(uintptr_t)arg; !stop; i++) {
    void** p = malloc(64 + i % 1000);
    CHECK(p);
    p[0] = kept + i % kKept;
    kept[i % kKept] = i % 4 ? p : NULL;
  }
  free(kept);
  return NULL;
}

int main(void) {
  NEED_GC();
  // One kernel thread has used much more time than those that come later.
  for (clock_t end = clock() + CLOCKS_PER_SEC; clock() < end;) {
  }
  pthread_t threads[kThreads];
  for (uintptr_t i = 0; i < kThreads; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, Work, (void*)i), 0);
  for (int round = 0; round < kRounds; round++) {
    SleepMs(5);
    double share = GcStats()->gc_cpu_fraction;
    CHECK_MSG(share >= 0 && share <= 1, "round %d: a share of %g", round, share);
  }
  stop = 1;
  for (int i = 0; i < kThreads; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_MSG(GcStats()->num_gc >= 5, "too few collections to tell");
  puts("shares right");
  return 0;
}
