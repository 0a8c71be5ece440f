// SPDX-License-Identifier: Apache-2.0
// Forks that libc does not see, children of children of vfork, what one thread sets for another, what
// threads inherit from a maker that has its own kernel state.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

static atomic_int stop, ready;

static void Await(pid_t child, int want) {
  int status = 0;
  pid_t got = waitpid(child, &status, 0);
  CHECK_MSG(got == child && status == want << 8, "child: %d, status 0x%x", got, status);
}
static void* Sleeps(void* arg) {
  ready++;
  while (!stop) SleepMs(1);
  return arg;
}

// A child made by a bare system call: it sleeps, waits and ends without hearing of other threads.
static void* RawForks(void* arg) {
  for (int i = 0; i < 5; i++) {
    pid_t child = (pid_t)(i % 2 ? syscall(SYS_fork) : syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    CHECK(child >= 0);
    if (child == 0) {
      SleepMs(2);
      _exit(getpid() == (pid_t)syscall(SYS_gettid) ? 5 : 6);
    }
    Await(child, 5);
  }
  return arg;
}
static void RawFork(const char* name) {
  (void)name;
  pthread_t s[8], t[2];
  stop = ready = 0;
  for (int i = 0; i < 8; i++) s[i] = Start(Sleeps, NULL);
  for (int i = 0; i < 2; i++) t[i] = Start(RawForks, NULL);
  for (int i = 0; i < 2; i++) Join(t[i]);
  stop = 1;
  for (int i = 0; i < 8; i++) Join(s[i]);
}

// The child of vfork makes one of its own before it ends.
static void* Vforks(void* arg) {
  for (int i = 0; i < 5; i++) {
    pid_t child = vfork();
    if (child == 0) {
      pid_t grandchild = vfork();
      if (grandchild == 0) _exit(3);
      int status;
      while (waitpid(grandchild, &status, 0) != grandchild) {
      }
      _exit(status == 3 << 8 ? 4 : 9);
    }
    CHECK(child > 0);
    Await(child, 4);
    SleepMs(1);
    sched_yield();
  }
  return arg;
}
static void Vfork(const char* name) {
  (void)name;
  pthread_t s[4], t[4];
  stop = ready = 0;
  for (int i = 0; i < 4; i++) s[i] = Start(Sleeps, NULL);
  for (int i = 0; i < 4; i++) t[i] = Start(Vforks, NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  stop = 1;
  for (int i = 0; i < 4; i++) Join(s[i]);
}

static void Another(const char* name) {
  (void)name;
  cpu_set_t all, one, got;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &all)) cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  stop = ready = 0;
  pthread_t t = Start(Sleeps, NULL);
  EVENTUALLY(ready == 1);
  CHECK_EQ(pthread_setaffinity_np(t, sizeof one, &one), 0);
  struct sched_param p = {0};
  int policy = -1;
  CHECK_EQ(pthread_setschedparam(t, SCHED_BATCH, &p), 0);
  for (int i = 0; i < 10; i++) {
    CHECK(pthread_getaffinity_np(t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
    CHECK(pthread_getschedparam(t, &policy, &p) == 0 && policy == SCHED_BATCH);
    SleepMs(2);
  }
  // Nobody else has got it.
  CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
  CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
  stop = 1;
  Join(t);
}

static void* Inherits(void* arg) {
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
  return arg;
}
static void* Plain(void* arg) {
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
  return arg;
}
static void* IsNice(void* arg) {
  errno = 0;
  CHECK(nice(5) == 5 && errno == 0);
  for (int i = 0; i < 5; i++) Join(Start(Inherits, NULL));
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
  return arg;
}
static void Inheriting(const char* name) {
  (void)name;
  stop = ready = 0;
  pthread_t s = Start(Sleeps, NULL), t[4];
  for (int i = 0; i < 4; i++) t[i] = Start(i % 2 ? IsNice : Plain, NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  for (int i = 0; i < 4; i++) Join(Start(Plain, NULL));
  stop = 1;
  Join(s);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"raw_fork", RawFork}, {"vfork", Vfork}, {"another", Another}, {"inheriting", Inheriting}};
  return RUN_PARTS(parts);
}
