// SPDX-License-Identifier: Apache-2.0
// Threads that waited for what processes share, each on a kernel thread of its own, have ended when
// the program forks: their kernel threads are gone as natively, for a fork copies what they have.
// Others still wait meanwhile.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=stopped env=UNDERGO=stress=stop
// timeout: 60
#include <semaphore.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kEnding = 600, kStaying = 40, kMost = 310, kForks = 5 };

static sem_t ready, ending, staying;
static void AwaitPost(sem_t* s) {
  while (sem_wait(s) != 0) CHECK_EQ(errno, EINTR);
}
static void* Waits(void* sem) {
  CHECK_EQ(sem_post(&ready), 0);
  AwaitPost(sem);
  return NULL;
}
static int KernelThreads(void) { return (int)ProcField("/proc/self/status", "Threads"); }
static void StartAll(pthread_t* t, int n, sem_t* sem) {
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 64 << 10);
  for (int i = 0; i < n; i++) CHECK_EQ(pthread_create(&t[i], &attr, Waits, sem), 0);
  pthread_attr_destroy(&attr);
  for (int i = 0; i < n; i++) AwaitPost(&ready);
}
static void EndAll(pthread_t* t, int n, sem_t* sem) {
  for (int i = 0; i < n; i++) CHECK_EQ(sem_post(sem), 0);
  for (int i = 0; i < n; i++) Join(t[i]);
}

int main(void) {
  static pthread_t t[kEnding], stay[kStaying];
  sem_init(&ready, 0, 0), sem_init(&ending, 1, 0), sem_init(&staying, 1, 0);
  StartAll(stay, kStaying, &staying);
  for (int round = 0; round < kForks; round++) {
    StartAll(t, kEnding, &ending);
    EndAll(t, kEnding, &ending);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      CHECK_EQ(KernelThreads(), 1);
      StartAll(t, 3, &ending);
      EndAll(t, 3, &ending);
      _exit(0);
    }
    // They leave the kernel a moment later; sysmon alone would leave them five seconds.
    for (int tries = 0; KernelThreads() > kMost && tries < 200; tries++) SleepMs(10);
    const int n = KernelThreads();
    CHECK_MSG(n <= kMost, "%d kernel threads", n);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EndAll(stay, kStaying, &staying);
  puts("all right");
  return 0;
}
