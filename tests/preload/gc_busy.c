// SPDX-License-Identifier: Apache-2.0
// A machine with far too much to do: the threads of the program wait long for a CPU, and so are
// late when they are to stop. Collections take place all the same, those that are asked for and
// those that the heap asks for, and the leak does not grow.
// native: no
// run: pace=long
// timeout: 100
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gc.h"

enum { kProcesses = 12, kThreads = 8, kForced = 4 };
static volatile int stop;

static void Burden(void) {
  for (int i = 0; i < kProcesses; i++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid != 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (volatile unsigned n = 0;; n++) {
    }
  }
}

// Computes and leaks.
static void* Work(void* arg) {
  unsigned n = (unsigned)(uintptr_t)arg;
  while (!stop) {
    for (int i = 0; i < 100000; i++) n = n * 1664525 + 1013904223;
    Leak(2000);
    __asm__ volatile("" ::"r"(n));
  }
  return NULL;
}

int main(void) {
  NEED_GC();
  Live* live = MakeLive(2000, 1);
  pthread_t worker[kThreads];
  for (size_t i = 0; i < kThreads; i++)
    CHECK_EQ(pthread_create(&worker[i], NULL, Work, (void*)(i + 1)), 0);
  Burden();
  int done = 0;
  const struct undergo_stats* s = GcStats();
  const uint64_t before = s->num_gc, forced = s->num_forced_gc;
  for (int i = 0; i < kForced; i++) {
    done += undergo_gc() == 0;
    SleepMs(200);
  }
  stop = 1;
  for (int i = 0; i < kThreads; i++) pthread_join(worker[i], NULL);
  s = GcStats();
  const uint64_t others = s->num_gc - before - (s->num_forced_gc - forced);
  CHECK_MSG(done == kForced, "%d of %d collections took place, %llu were given up", done, kForced,
            (unsigned long long)s->num_abandoned_gc);
  CHECK_MSG(others > 0, "the heap asked for no collection");
  CHECK_MSG(s->num_abandoned_gc * 4 <= s->num_gc, "%llu collections given up, %llu done",
            (unsigned long long)s->num_abandoned_gc, (unsigned long long)s->num_gc);
  CHECK_MSG(RssKb() < 600000, "%ld kB resident", RssKb());
  CheckLive(live, 2000, 1);
  puts("all right");
  return 0;
}
