// SPDX-License-Identifier: Apache-2.0
// Mutexes in which the kernel has a part: robust ones whose owner dies (thread or process),
// priority inheritance and ceiling, and those shared between processes.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pthreads.h"

typedef pthread_mutex_t Mutex;
enum { kRobust = 1, kShared = 2, kInherit = 4, kCeiling = 8, kChecks = 16 };

static int Make(Mutex* m, int what) {
  pthread_mutexattr_t a;
  pthread_mutexattr_init(&a);
  if (what & kRobust) CHECK_EQ(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST), 0);
  if (what & kShared) CHECK_EQ(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED), 0);
  if (what & kInherit) CHECK_EQ(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT), 0);
  if (what & kCeiling) CHECK_EQ(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_PROTECT), 0);
  if (what & kChecks) CHECK_EQ(pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK), 0);
  int error = pthread_mutex_init(m, &a);
  pthread_mutexattr_destroy(&a);
  return error;
}
static void* Map(void) {
  void* p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(p != MAP_FAILED);
  return p;
}

static void* DiesWithLock(void* m) {
  CHECK_EQ(pthread_mutex_lock(m), 0);
  return NULL;
}
static void* ExitsWithLock(void* m) {
  CHECK_EQ(pthread_mutex_lock(m), 0);
  SleepMs(5);
  pthread_exit(NULL);
}
static void* WaitsForLock(void* m) {
  int error = pthread_mutex_lock(m);
  if (error == EOWNERDEAD) CHECK_EQ(pthread_mutex_consistent(m), 0);
  CHECK_EQ(pthread_mutex_unlock(m), 0);
  return (void*)(intptr_t)error;
}
static void* Tries(void* m) { return (void*)(intptr_t)pthread_mutex_trylock(m); }
static void RobustOf(int what) {
  static Mutex m;
  CHECK_EQ(Make(&m, what), 0);
  // A dead owner, and who comes next makes it consistent.
  Join(Start(DiesWithLock, &m));
  CHECK_EQ(pthread_mutex_lock(&m), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&m), 0);
  CHECK_EQ(pthread_mutex_consistent(&m), EINVAL);
  CHECK_EQ(pthread_mutex_unlock(&m), 0);
  CHECK_EQ(pthread_mutex_lock(&m), 0);
  CHECK_EQ((intptr_t)Join(Start(Tries, &m)), EBUSY);
  CHECK_EQ(pthread_mutex_unlock(&m), 0);
  // Several wait while the owner dies: exactly one is told.
  pthread_t owner = Start(ExitsWithLock, &m), t[5];
  SleepMs(2);
  for (int i = 0; i < 5; i++) t[i] = Start(WaitsForLock, &m);
  Join(owner);
  int told = 0;
  for (int i = 0; i < 5; i++) {
    int error = (int)(intptr_t)Join(t[i]);
    CHECK_MSG(error == 0 || error == EOWNERDEAD, "lock after a death: %d", error);
    told += error == EOWNERDEAD;
  }
  CHECK_MSG(told <= 1, "%d were told of one death", told);
  if (told == 0) {  // the owner may have come last
    int error = pthread_mutex_lock(&m);
    CHECK_EQ(error, EOWNERDEAD);
    CHECK_EQ(pthread_mutex_consistent(&m), 0);
    CHECK_EQ(pthread_mutex_unlock(&m), 0);
  }
  // By the other ways to lock; not made consistent, it is lost for good.
  Join(Start(DiesWithLock, &m));
  CHECK_EQ(pthread_mutex_trylock(&m), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&m), 0);
  CHECK_EQ(pthread_mutex_unlock(&m), 0);
  Join(Start(DiesWithLock, &m));
  struct timespec when = In(CLOCK_REALTIME, 10000);
  CHECK_EQ(pthread_mutex_timedlock(&m, &when), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_unlock(&m), 0);
  CHECK_EQ(pthread_mutex_lock(&m), ENOTRECOVERABLE);
  CHECK_EQ(pthread_mutex_trylock(&m), ENOTRECOVERABLE);
  CHECK_EQ(pthread_mutex_destroy(&m), 0);
}
static void Robust(const char* name) {
  (void)name;
  RobustOf(kRobust);
  RobustOf(kRobust | kChecks);
  RobustOf(kRobust | kInherit);
  RobustOf(kRobust | kShared);
  RobustOf(kRobust | kShared | kInherit);
}

// One list of many robust mutexes, some given back before the end, in another order.
static Mutex many[20];
static void* HoldsMany(void* arg) {
  for (int i = 0; i < 20; i++) CHECK_EQ(pthread_mutex_lock(&many[i]), 0);
  for (int i = 1; i < 20; i += 3) CHECK_EQ(pthread_mutex_unlock(&many[i]), 0);
  return arg;
}
static void RobustMany(const char* name) {
  (void)name;
  for (int i = 0; i < 20; i++) CHECK_EQ(Make(&many[i], i % 2 ? kRobust : kRobust | kShared), 0);
  Join(Start(HoldsMany, NULL));
  for (int i = 0; i < 20; i++)
    CHECK_EQ(pthread_mutex_trylock(&many[i]), i % 3 == 1 ? 0 : EOWNERDEAD);
  for (int i = 0; i < 20; i++) CHECK_EQ(pthread_mutex_unlock(&many[i]), 0);
}

// A process dies with the lock, held by a thread of its own.
static void RobustProcess(const char* name) {
  (void)name;
  Mutex* m = Map();
  CHECK_EQ(Make(m, kRobust | kShared), 0);
  for (int way = 0; way < 3; way++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(60);
      if (way == 0) DiesWithLock(m);
      if (way == 1) Join(Start(DiesWithLock, m));
      if (way == 2) {
        DiesWithLock(m);
        kill(getpid(), SIGKILL);
      }
      _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
    CHECK_EQ(pthread_mutex_consistent(m), 0);
    CHECK_EQ(pthread_mutex_unlock(m), 0);
  }
}

static Mutex* counted;
static void* Counts(void* arg) {
  volatile long* counter = (volatile long*)(counted + 1);
  for (int i = 0; i < 1000; i++) {
    CHECK_EQ(pthread_mutex_lock(counted), 0);
    long was = *counter;
    if (i % 50 == 0) sched_yield();
    *counter = was + 1;
    CHECK_EQ(pthread_mutex_unlock(counted), 0);
  }
  return arg;
}
// Four threads here and four in a child, over one mutex of each sort.
static void Shared(const char* name) {
  (void)name;
  static const int sorts[] = {kShared, kShared | kRobust, kShared | kInherit, kShared | kChecks};
  for (int k = 0; k < 4; k++) {
    counted = Map();
    CHECK_EQ(Make(counted, sorts[k]), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) alarm(60);  // if the parent fails
    pthread_t t[4];
    for (int i = 0; i < 4; i++) t[i] = Start(Counts, NULL);
    for (int i = 0; i < 4; i++) Join(t[i]);
    if (child == 0) _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQ(*(long*)(counted + 1), 8000);
  }
}

static void* TimesOut(void* m) {
  struct timespec when = In(CLOCK_REALTIME, 20);
  CHECK_EQ(pthread_mutex_timedlock(m, &when), ETIMEDOUT);
  CHECK_EQ(pthread_mutex_trylock(m), EBUSY);
  return NULL;
}
static void* Unlocks(void* m) { return (void*)(intptr_t)pthread_mutex_unlock(m); }
static void Priority(const char* name) {
  (void)name;
  Mutex m;
  CHECK_EQ(Make(&m, kInherit), 0);
  CHECK_EQ(pthread_mutex_lock(&m), 0);
  Join(Start(TimesOut, &m));
  CHECK_EQ((intptr_t)Join(Start(Unlocks, &m)), EPERM);
  CHECK_EQ(pthread_mutex_unlock(&m), 0);
  CHECK_EQ(pthread_mutex_destroy(&m), 0);
  counted = Map();
  CHECK_EQ(Make(counted, kInherit), 0);
  pthread_t t[6];
  for (int i = 0; i < 6; i++) t[i] = Start(Counts, NULL);
  for (int i = 0; i < 6; i++) Join(t[i]);
  CHECK_EQ(*(long*)(counted + 1), 6000);
}

// A ceiling is for real-time threads: the owner's priority rises while it holds the lock.
static void* Ceiling(void* arg) {
  Mutex* m = arg;
  struct sched_param p = {.sched_priority = 3};
  int policy, old;
  CHECK_EQ(pthread_mutex_lock(m), EINVAL);
  if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &p) != 0) return NULL;
  CHECK(pthread_mutex_setprioceiling(m, 7, &old) == 0 && old >= 1);
  CHECK(pthread_mutex_getprioceiling(m, &old) == 0 && old == 7);
  CHECK_EQ(pthread_mutex_lock(m), 0);
  CHECK(sched_getparam(0, &p) == 0 && p.sched_priority == 7);
  CHECK_EQ(pthread_mutex_unlock(m), 0);
  CHECK(sched_getparam(0, &p) == 0 && p.sched_priority == 3);
  CHECK(pthread_getschedparam(pthread_self(), &policy, &p) == 0 && policy == SCHED_FIFO &&
        p.sched_priority == 3);
  p.sched_priority = 9;
  CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_FIFO, &p), 0);
  CHECK_EQ(pthread_mutex_lock(m), EINVAL);  // above the ceiling
  return NULL;
}
static void Ceilings(const char* name) {
  (void)name;
  static Mutex m;
  CHECK_EQ(Make(&m, kCeiling), 0);
  Join(Start(Ceiling, &m));
  CHECK_EQ(pthread_mutex_destroy(&m), 0);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"robust", Robust}, {"robust_many", RobustMany}, {"robust_process", RobustProcess},
      {"shared", Shared}, {"priority", Priority},      {"ceilings", Ceilings}};
  return RUN_PARTS(parts);
}
