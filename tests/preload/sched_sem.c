// SPDX-License-Identifier: Apache-2.0
// Unnamed semaphores: codes, both clocks, posts from a signal handler and from a thread that the C
// library does not know, and no wake-up lost with many at them.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <limits.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "pthreads.h"

static sem_t sem, back;
static atomic_int got;

#define FAILS(call, error) CHECK_MSG((call) == -1 && errno == (error), "%s: %d", #call, errno)

static void Codes(const char* name) {
  (void)name;
  int v;
  FAILS(sem_init(&sem, 0, (unsigned)SEM_VALUE_MAX + 1), EINVAL);
  CHECK(sem_init(&sem, 0, 2) == 0 && sem_getvalue(&sem, &v) == 0 && v == 2);
  CHECK(sem_wait(&sem) == 0 && sem_trywait(&sem) == 0);
  FAILS(sem_trywait(&sem), EAGAIN);
  CHECK(sem_getvalue(&sem, &v) == 0 && v == 0);
  struct timespec when = In(CLOCK_REALTIME, 25);
  FAILS(sem_timedwait(&sem, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_REALTIME, when));
  for (int i = 0; i < 2; i++) {
    const clockid_t clock = i ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    when = In(clock, 25);
    FAILS(sem_clockwait(&sem, clock, &when), ETIMEDOUT);
    CHECK(Reached(clock, when));
  }
  FAILS(sem_timedwait(&sem, &(struct timespec){1, 0}), ETIMEDOUT);
  when.tv_nsec = 1000000000;
  FAILS(sem_timedwait(&sem, &when), EINVAL);
  FAILS(sem_clockwait(&sem, CLOCK_PROCESS_CPUTIME_ID, &when), EINVAL);
  // A time that has passed does not matter when there is something to take.
  CHECK(sem_post(&sem) == 0 && sem_timedwait(&sem, &(struct timespec){1, 0}) == 0);
  CHECK_EQ(sem_init(&back, 0, SEM_VALUE_MAX), 0);
  FAILS(sem_post(&back), EOVERFLOW);
  CHECK_EQ(sem_destroy(&back), 0);
}

static void* Takes(void* arg) {
  for (intptr_t i = 0; i < (intptr_t)arg; i++) {
    if (i % 3 == 0) {
      struct timespec when = In(CLOCK_REALTIME, 60000);
      CHECK_EQ(sem_timedwait(&sem, &when), 0);
    } else {
      CHECK_EQ(sem_wait(&sem), 0);
    }
    atomic_fetch_add(&got, 1);
    if (i % 5 == 0) sched_yield();
    CHECK_EQ(sem_post(&back), 0);
  }
  return NULL;
}
static void* Gives(void* arg) {
  for (intptr_t i = 0; i < (intptr_t)arg; i++) {
    CHECK_EQ(sem_post(&sem), 0);
    CHECK_EQ(sem_wait(&back), 0);
  }
  return NULL;
}
static void Traffic(const char* name) {
  (void)name;
  enum { kPairs = 8, kEach = 1500 };
  CHECK(sem_init(&sem, 0, 0) == 0 && sem_init(&back, 0, 0) == 0);
  got = 0;
  pthread_t t[2 * kPairs];
  for (int i = 0; i < kPairs; i++) {
    t[2 * i] = Start(Takes, (void*)kEach);
    t[2 * i + 1] = Start(Gives, (void*)kEach);
  }
  for (int i = 0; i < 2 * kPairs; i++) Join(t[i]);
  int a, b;
  CHECK(got == kPairs * kEach && sem_getvalue(&sem, &a) == 0 && sem_getvalue(&back, &b) == 0);
  CHECK(a == 0 && b == 0);
}

// 300 wait at once and all come through, by posts in one go.
static void* TakesOne(void* arg) {
  CHECK_EQ(sem_wait(&sem), 0);
  atomic_fetch_add(&got, 1);
  return arg;
}
static void Many(const char* name) {
  (void)name;
  enum { kWaiters = 300 };
  CHECK_EQ(sem_init(&sem, 0, 0), 0);
  got = 0;
  pthread_t t[kWaiters];
  for (int i = 0; i < kWaiters; i++) t[i] = Start(TakesOne, NULL);
  Moment();
  CHECK_EQ(got, 0);
  for (int i = 0; i < 10; i++) CHECK_EQ(sem_post(&sem), 0);
  EVENTUALLY(got == 10);
  Moment();
  CHECK_EQ(got, 10);
  for (int i = 10; i < kWaiters; i++) CHECK_EQ(sem_post(&sem), 0);
  for (int i = 0; i < kWaiters; i++) Join(t[i]);
}

// The handler interrupts whatever the threads do, posting included.
static atomic_int posted, stop;
static void OnAlarm(int sig) {
  (void)sig;
  int error = errno;
  atomic_fetch_add(&posted, 1);
  if (sem_post(&sem) != 0) _exit(9);
  errno = error;
}
static void* Churns(void* arg) {
  while (!stop) {
    sem_post(&back);
    while (sem_wait(&back) == -1) CHECK_EQ(errno, EINTR);
  }
  return arg;
}
static void FromHandler(const char* name) {
  (void)name;
  CHECK(sem_init(&sem, 0, 0) == 0 && sem_init(&back, 0, 0) == 0);
  struct sigaction act = {.sa_handler = OnAlarm};
  CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
  pthread_t t[3];
  for (int i = 0; i < 3; i++) t[i] = Start(Churns, NULL);
  struct itimerval each = {{0, 700}, {0, 700}}, none = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &each, NULL);
  for (int i = 0; i < 150;) {
    if (sem_wait(&sem) == 0)
      i++;
    else
      CHECK_EQ(errno, EINTR);
  }
  setitimer(ITIMER_REAL, &none, NULL);
  stop = 1;
  for (int i = 0; i < 3; i++) Join(t[i]);
  while (sem_trywait(&sem) == 0) got++;
  CHECK(posted >= 150);
}

static int RawPosts(void* arg) {
  for (int i = 0; i < 20; i++) sem_post(arg);
  return 0;
}
static void FromRawThread(const char* name) {
  (void)name;
  CHECK_EQ(sem_init(&sem, 0, 0), 0);
  got = 0;
  pthread_t t[20];
  for (int i = 0; i < 20; i++) t[i] = Start(TakesOne, NULL);
  Moment();
  char* stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(stack != MAP_FAILED);
  int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  CHECK(clone(RawPosts, stack + 65536, flags, &sem) > 0);
  for (int i = 0; i < 20; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"codes", Codes},
                               {"traffic", Traffic},
                               {"many", Many},
                               {"from_handler", FromHandler},
                               {"from_raw_thread", FromRawThread}};
  return RUN_PARTS(parts);
}
