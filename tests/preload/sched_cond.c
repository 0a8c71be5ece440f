// SPDX-License-Identifier: Apache-2.0
// Condition variables: every clock and timeout, one and all, mutexes of every kind, many waiters,
// and no wake-up lost however the threads come and go.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pthreads.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t checks = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static pthread_mutex_t* guard = &mutex;
static int waiting, tokens, woken;

static void MakeCond(pthread_cond_t* c, clockid_t clock, int shared) {
  pthread_condattr_t a;
  CHECK_EQ(pthread_condattr_init(&a), 0);
  CHECK_EQ(pthread_condattr_setclock(&a, clock), 0);
  CHECK_EQ(pthread_condattr_setpshared(&a, shared), 0);
  clockid_t got;
  CHECK(pthread_condattr_getclock(&a, &got) == 0 && got == clock);
  CHECK_EQ(pthread_cond_init(c, &a), 0);
  CHECK_EQ(pthread_condattr_destroy(&a), 0);
}

// The mutex is held again after a timeout; the time has come, on the clock that was asked for.
static void Timeouts(const char* name) {
  (void)name;
  static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC};
  pthread_mutex_t m;
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_init(&m, &attr);
  for (int i = 0; i < 2; i++) {
    for (int shared = 0; shared < 2; shared++) {
      pthread_cond_t c;
      MakeCond(&c, clocks[i], shared);
      CHECK_EQ(pthread_mutex_lock(&m), 0);
      struct timespec when = In(clocks[i], 25);
      CHECK_EQ(pthread_cond_timedwait(&c, &m, &when), ETIMEDOUT);
      CHECK(Reached(clocks[i], when));
      CHECK_EQ(pthread_mutex_lock(&m), EDEADLK);
      CHECK_EQ(pthread_cond_timedwait(&c, &m, &when), ETIMEDOUT);
      for (int k = 0; k < 2; k++) {
        when = In(clocks[k], 25);
        CHECK_EQ(pthread_cond_clockwait(&c, &m, clocks[k], &when), ETIMEDOUT);
        CHECK(Reached(clocks[k], when));
      }
      when.tv_nsec = 1000000000;
      CHECK_EQ(pthread_cond_timedwait(&c, &m, &when), EINVAL);
      when.tv_nsec = -1;
      CHECK_EQ(pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &when), EINVAL);
      when.tv_nsec = 0;
      CHECK_EQ(pthread_cond_clockwait(&c, &m, CLOCK_PROCESS_CPUTIME_ID, &when), EINVAL);
      CHECK_EQ(pthread_mutex_unlock(&m), 0);
      CHECK_EQ(pthread_cond_wait(&c, &m), EPERM);
      CHECK_EQ(pthread_cond_destroy(&c), 0);
    }
  }
  pthread_condattr_t a;
  pthread_condattr_init(&a);
  CHECK_EQ(pthread_condattr_setclock(&a, CLOCK_PROCESS_CPUTIME_ID), EINVAL);
}

static void* TakesToken(void* arg) {
  pthread_mutex_lock(guard);
  waiting++;
  while (tokens == 0) CHECK_EQ(pthread_cond_wait(&cond, guard), 0);
  tokens--;
  woken++;
  CHECK_EQ(pthread_mutex_unlock(guard), 0);
  return arg;
}
static int Locked(int* p) {
  pthread_mutex_lock(guard);
  int v = *p;
  pthread_mutex_unlock(guard);
  return v;
}
// A signal wakes at least one, a broadcast all; a signal without a waiter is nothing.
static void WakesOver(pthread_mutex_t* m) {
  guard = m;
  enum { kWaiters = 200 };
  CHECK_EQ(pthread_cond_signal(&cond), 0);
  CHECK_EQ(pthread_cond_broadcast(&cond), 0);
  pthread_t t[kWaiters];
  waiting = woken = tokens = 0;
  for (int i = 0; i < kWaiters; i++) t[i] = Start(TakesToken, NULL);
  EVENTUALLY(Locked(&waiting) == kWaiters);
  for (int i = 1; i <= 50; i++) {
    pthread_mutex_lock(guard);
    tokens++;
    if (i % 2) pthread_cond_signal(&cond);
    pthread_mutex_unlock(guard);
    if (i % 2 == 0) pthread_cond_signal(&cond);
    EVENTUALLY(Locked(&woken) == i);
  }
  pthread_mutex_lock(guard);
  tokens = kWaiters - 50;
  pthread_cond_broadcast(&cond);
  pthread_mutex_unlock(guard);
  for (int i = 0; i < kWaiters; i++) Join(t[i]);
  CHECK_EQ(woken, kWaiters);
}

static void Wakes(const char* name) {
  (void)name;
  WakesOver(&checks);
  WakesOver(&mutex);
}

// A bounded queue between producers and consumers; each item arrives once. Some waits have a
// timeout that often runs out just when the wake-up comes.
enum { kItems = 6000, kRoom = 4 };
static int queue[kRoom], filled, produced, seen[kItems];
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER, not_empty = PTHREAD_COND_INITIALIZER;
static void* Produces(void* arg) {
  for (;;) {
    pthread_mutex_lock(&mutex);
    while (filled == kRoom) pthread_cond_wait(&not_full, &mutex);
    if (produced == kItems) break;
    queue[filled++] = produced++;
    pthread_cond_signal(&not_empty);
    pthread_mutex_unlock(&mutex);
  }
  pthread_cond_signal(&not_full);
  pthread_mutex_unlock(&mutex);
  return arg;
}
static void* Consumes(void* arg) {
  const int impatient = arg != NULL;
  for (;;) {
    pthread_mutex_lock(&mutex);
    while (filled == 0 && produced < kItems) {
      struct timespec when = In(CLOCK_MONOTONIC, 1);
      int error = impatient ? pthread_cond_clockwait(&not_empty, &mutex, CLOCK_MONOTONIC, &when)
                            : pthread_cond_wait(&not_empty, &mutex);
      CHECK_MSG(error == 0 || error == ETIMEDOUT, "wait: %d", error);
    }
    if (filled == 0) break;
    seen[queue[--filled]]++;
    pthread_cond_signal(&not_full);
    pthread_mutex_unlock(&mutex);
  }
  pthread_cond_broadcast(&not_empty);
  pthread_mutex_unlock(&mutex);
  return NULL;
}
static void Queue(const char* name) {
  (void)name;
  pthread_t p[4], c[4];
  for (intptr_t i = 0; i < 4; i++) {
    p[i] = Start(Produces, NULL);
    c[i] = Start(Consumes, i % 2 ? &queue : NULL);
  }
  for (int i = 0; i < 4; i++) Join(p[i]);
  // The last producers left only after everything had been taken up.
  pthread_mutex_lock(&mutex);
  pthread_cond_broadcast(&not_empty);
  pthread_mutex_unlock(&mutex);
  for (int i = 0; i < 4; i++) Join(c[i]);
  for (int i = 0; i < kItems; i++) CHECK_MSG(seen[i] == 1, "item %d came %d times", i, seen[i]);
}

// Strict alternation of two threads over one condition each: any lost wake-up hangs.
static int turn;
static pthread_cond_t turns[2] = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};
static void* Alternates(void* arg) {
  const int me = arg != NULL;
  for (int i = 0; i < 5000; i++) {
    pthread_mutex_lock(&mutex);
    while (turn != me) pthread_cond_wait(&turns[me], &mutex);
    turn = !me;
    pthread_cond_signal(&turns[!me]);
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}
static void PingPong(const char* name) {
  (void)name;
  pthread_t a = Start(Alternates, NULL), b = Start(Alternates, &turn);
  Join(a), Join(b);
}

// A condition that goes away as soon as the last waiter was woken.
static void* WaitsOnce(void* p) {
  pthread_cond_t* c = p;
  pthread_mutex_lock(&mutex);
  waiting++;
  while (tokens == 0) pthread_cond_wait(c, &mutex);
  pthread_mutex_unlock(&mutex);
  return NULL;
}
static void Destroyed(const char* name) {
  (void)name;
  for (int round = 0; round < 50; round++) {
    pthread_cond_t* c = malloc(sizeof *c);
    MakeCond(c, CLOCK_MONOTONIC, 0);
    waiting = tokens = 0;
    pthread_t t[3];
    for (int i = 0; i < 3; i++) t[i] = Start(WaitsOnce, c);
    EVENTUALLY(Locked(&waiting) == 3);
    pthread_mutex_lock(&mutex);
    tokens = 1;
    pthread_cond_broadcast(c);
    pthread_mutex_unlock(&mutex);
    CHECK_EQ(pthread_cond_destroy(c), 0);
    memset(c, 0xff, sizeof *c);
    free(c);
    for (int i = 0; i < 3; i++) Join(t[i]);
  }
}

// Signalled while the mutex stays locked beyond the deadline: the wait had its signal.
static int result = -1;
static void* WaitsShortly(void* arg) {
  pthread_mutex_lock(guard);
  struct timespec when = In(CLOCK_MONOTONIC, 60);
  waiting++;
  result = pthread_cond_clockwait(&cond, guard, CLOCK_MONOTONIC, &when);
  pthread_mutex_unlock(guard);
  return arg;
}
static void LateFor(pthread_mutex_t* m, int all) {
  guard = m;
  waiting = 0;
  pthread_t t = Start(WaitsShortly, NULL);
  EVENTUALLY(Locked(&waiting) == 1);
  pthread_mutex_lock(m);
  if (all) {
    pthread_cond_broadcast(&cond);
  } else {
    pthread_cond_signal(&cond);
  }
  struct timespec when = In(CLOCK_MONOTONIC, 90);
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
  pthread_mutex_unlock(m);
  Join(t);
  CHECK_EQ(result, 0);
}
static void Late(const char* name) {
  (void)name;
  for (int all = 0; all < 2; all++) {
    LateFor(&mutex, all);
    LateFor(&checks, all);
  }
}

// Threads that only lock, between those that signal and wait: nobody who sleeps for the mutex is
// forgotten.
static atomic_int crowd_over;
static void* JustLocks(void* arg) {
  while (!crowd_over) {
    pthread_mutex_lock(&mutex);
    if (arg != NULL) sched_yield();
    pthread_mutex_unlock(&mutex);
    sched_yield();
  }
  return arg;
}
static void Crowd(const char* name) {
  pthread_t t[6];
  for (int i = 0; i < 6; i++) t[i] = Start(JustLocks, i % 2 ? &waiting : NULL);
  PingPong(name);
  guard = &mutex;
  waiting = woken = tokens = 0;
  pthread_t w[40];
  for (int i = 0; i < 40; i++) w[i] = Start(TakesToken, NULL);
  EVENTUALLY(Locked(&waiting) == 40);
  pthread_mutex_lock(guard);
  tokens = 40;
  pthread_cond_broadcast(&cond);
  pthread_mutex_unlock(guard);
  for (int i = 0; i < 40; i++) Join(w[i]);
  crowd_over = 1;
  for (int i = 0; i < 6; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"timeouts", Timeouts},  {"wakes", Wakes}, {"queue", Queue},
                               {"ping_pong", PingPong}, {"late", Late},   {"crowd", Crowd},
                               {"destroyed", Destroyed}};
  return RUN_PARTS(parts);
}
