// SPDX-License-Identifier: Apache-2.0
// Mutexes of every kind: who may lock and unlock, what each misuse returns, both clocks of the
// timed forms, and that none of them lets two threads in.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pthreads.h"

typedef pthread_mutex_t Mutex;
static Mutex shared;
static pthread_mutexattr_t Attr(int kind) {
  pthread_mutexattr_t a;
  CHECK_EQ(pthread_mutexattr_init(&a), 0);
  CHECK_EQ(pthread_mutexattr_settype(&a, kind), 0);
  return a;
}
static void Make(Mutex* m, int kind) {
  pthread_mutexattr_t a = Attr(kind);
  CHECK_EQ(pthread_mutex_init(m, &a), 0);
  CHECK_EQ(pthread_mutexattr_destroy(&a), 0);
}

static void* Try(void* m) { return (void*)(intptr_t)pthread_mutex_trylock(m); }
static void* Unlocks(void* m) { return (void*)(intptr_t)pthread_mutex_unlock(m); }
static int OtherTries(Mutex* m) { return (int)(intptr_t)Join(Start(Try, m)); }
static int OtherUnlocks(Mutex* m) { return (int)(intptr_t)Join(Start(Unlocks, m)); }
static void* Times(void* p) {
  Mutex* m = p;
  struct timespec when = In(CLOCK_REALTIME, 30);
  CHECK_EQ(pthread_mutex_timedlock(m, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_REALTIME, when));
  when = In(CLOCK_MONOTONIC, 30);
  CHECK_EQ(pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  when = In(CLOCK_REALTIME, -10);
  CHECK_EQ(pthread_mutex_clocklock(m, CLOCK_REALTIME, &when), ETIMEDOUT);
  when.tv_nsec = -1;
  CHECK_EQ(pthread_mutex_timedlock(m, &when), EINVAL);
  when.tv_nsec = 1000000000;
  CHECK_EQ(pthread_mutex_timedlock(m, &when), EINVAL);
  CHECK_EQ(pthread_mutex_clocklock(m, CLOCK_THREAD_CPUTIME_ID, &when), EINVAL);
  return NULL;
}

static void Kinds(const char* name) {
  (void)name;
  static const int kinds[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
                              PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
  for (int i = 0; i < 4; i++) {
    Mutex m;
    Make(&m, kinds[i]);
    const int recursive = kinds[i] == PTHREAD_MUTEX_RECURSIVE;
    const int checks = kinds[i] == PTHREAD_MUTEX_ERRORCHECK;
    CHECK_EQ(pthread_mutex_lock(&m), 0);
    CHECK_EQ(pthread_mutex_trylock(&m), recursive ? 0 : EBUSY);
    if (recursive) CHECK_EQ(pthread_mutex_unlock(&m), 0);
    if (checks) CHECK_EQ(pthread_mutex_lock(&m), EDEADLK);
    if (recursive || checks) CHECK_EQ(OtherUnlocks(&m), EPERM);
    CHECK_EQ(OtherTries(&m), EBUSY);
    CHECK_EQ(pthread_mutex_destroy(&m), EBUSY);
    Join(Start(Times, &m));
    struct timespec when = In(CLOCK_REALTIME, 10000);
    if (checks) CHECK_EQ(pthread_mutex_timedlock(&m, &when), EDEADLK);
    if (recursive) {
      for (int k = 0; k < 1000; k++) CHECK_EQ(pthread_mutex_lock(&m), 0);
      CHECK_EQ(pthread_mutex_timedlock(&m, &when), 0);
      for (int k = 0; k < 1001; k++) CHECK_EQ(pthread_mutex_unlock(&m), 0);
      CHECK_EQ(OtherTries(&m), EBUSY);
    }
    CHECK_EQ(pthread_mutex_unlock(&m), 0);
    if (recursive || checks) CHECK_EQ(pthread_mutex_unlock(&m), EPERM);
    CHECK_EQ(pthread_mutex_timedlock(&m, &when), 0);
    CHECK_EQ(pthread_mutex_unlock(&m), 0);
    CHECK_EQ(OtherTries(&m), 0);
    // A normal mutex may be given back by another thread here, as programs do that misuse it.
    if (!recursive && !checks) {
      CHECK_EQ(pthread_mutex_unlock(&m), 0);
      CHECK_EQ(pthread_mutex_destroy(&m), 0);
    }
  }
}

static void* LocksOnce(void* m) {
  CHECK_EQ(pthread_mutex_lock(m), 0);
  CHECK_EQ(pthread_mutex_unlock(m), 0);
  return NULL;
}
// The static forms, and a mutex that is freed as soon as it was unlocked.
static void Forms(const char* name) {
  (void)name;
  Mutex plain = PTHREAD_MUTEX_INITIALIZER, recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
  Mutex checks = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
  Mutex adaptive = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
  Mutex* all[] = {&plain, &recursive, &checks, &adaptive};
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(pthread_mutex_lock(all[i]), 0);
    pthread_t t = Start(LocksOnce, all[i]);
    SleepMs(2);
    CHECK_EQ(pthread_mutex_unlock(all[i]), 0);
    Join(t);
  }
  CHECK_EQ(pthread_mutex_lock(&recursive), 0);
  CHECK_EQ(pthread_mutex_lock(&recursive), 0);
  for (int i = 0; i < 200; i++) {
    Mutex* m = malloc(sizeof *m);
    Make(m, PTHREAD_MUTEX_NORMAL);
    pthread_mutex_lock(m);
    pthread_t t = Start(LocksOnce, m);
    if (i % 3 == 0) sched_yield();
    pthread_mutex_unlock(m);
    Join(t);
    pthread_mutex_destroy(m);
    memset(m, 0xff, sizeof *m);
    free(m);
  }
}

// Eight threads and one counter, by each way to lock; every tenth owner sleeps with the lock held.
static long counter, inside;
static void* Counts(void* arg) {
  const intptr_t way = (intptr_t)arg;
  for (int i = 0; i < 4000; i++) {
    struct timespec when = In(CLOCK_REALTIME, 60000);
    switch (way % 3) {
      case 0: CHECK_EQ(pthread_mutex_lock(&shared), 0); break;
      case 1: CHECK_EQ(pthread_mutex_timedlock(&shared, &when), 0); break;
      case 2:
        while (pthread_mutex_trylock(&shared) == EBUSY) sched_yield();
        break;
    }
    CHECK(++inside == 1);
    counter++;
    if (i % 1000 == 0) usleep(100);
    if (i % 100 == 0) sched_yield();
    CHECK(--inside == 0);
    CHECK_EQ(pthread_mutex_unlock(&shared), 0);
  }
  return NULL;
}
static void Exclusion(const char* name) {
  (void)name;
  static const int kinds[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
                              PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
  for (int k = 0; k < 4; k++) {
    Make(&shared, kinds[k]);
    counter = 0;
    pthread_t t[8];
    for (intptr_t i = 0; i < 8; i++) t[i] = Start(Counts, (void*)i);
    for (int i = 0; i < 8; i++) Join(t[i]);
    CHECK_EQ(counter, 32000);
    CHECK_EQ(pthread_mutex_destroy(&shared), 0);
  }
}

// Attributes are kept, and what does not exist is refused.
static void Attributes(const char* name) {
  (void)name;
  pthread_mutexattr_t a = Attr(PTHREAD_MUTEX_ERRORCHECK);
  int v;
  CHECK(pthread_mutexattr_gettype(&a, &v) == 0 && v == PTHREAD_MUTEX_ERRORCHECK);
  CHECK_EQ(pthread_mutexattr_settype(&a, 99), EINVAL);
  CHECK(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT) == 0 &&
        pthread_mutexattr_getprotocol(&a, &v) == 0 && v == PTHREAD_PRIO_INHERIT);
  CHECK_EQ(pthread_mutexattr_setprotocol(&a, 99), EINVAL);
  CHECK(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) == 0 &&
        pthread_mutexattr_getrobust(&a, &v) == 0 && v == PTHREAD_MUTEX_ROBUST);
  CHECK(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0 &&
        pthread_mutexattr_getpshared(&a, &v) == 0 && v == PTHREAD_PROCESS_SHARED);
  CHECK_EQ(pthread_mutexattr_setpshared(&a, 99), EINVAL);
  pthread_mutexattr_destroy(&a);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"kinds", Kinds}, {"forms", Forms}, {"exclusion", Exclusion}, {"attributes", Attributes}};
  return RUN_PARTS(parts);
}
