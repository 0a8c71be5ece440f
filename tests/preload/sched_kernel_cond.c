// SPDX-License-Identifier: Apache-2.0
// Threads that keep a kernel thread (here for a prctl) and others share mutexes and conditions: no
// wake-up is lost between the two kinds, and cancelling one in its wait gives the mutex back and
// takes nobody's signal.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 60
#include <stdatomic.h>
#include <sys/prctl.h>

#include "pthreads.h"

enum { kThreads = 6, kRounds = 4000 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t full = PTHREAD_COND_INITIALIZER, empty = PTHREAD_COND_INITIALIZER;
static int slots, taken, waiting;

static void KeepKernelThread(intptr_t i) {
  if (i % 2 == 0) CHECK_EQ(prctl(PR_SET_TIMERSLACK, 50000, 0, 0, 0), 0);
}

// Every call ends in a wait now and then, with others at the mutex.
static void* Take(void* arg) {
  KeepKernelThread((intptr_t)arg);
  for (int i = 0; i < kRounds; i++) {
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    while (slots == 0) CHECK_EQ(pthread_cond_wait(&full, &mutex), 0);
    slots--, taken++;
    CHECK_EQ(pthread_cond_signal(&empty), 0);
    CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  }
  return NULL;
}
static void* Give(void* arg) {
  KeepKernelThread((intptr_t)arg);
  for (int i = 0; i < kRounds; i++) {
    struct timespec t = In(CLOCK_REALTIME, 60000);
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    while (slots == 2) CHECK_EQ(pthread_cond_timedwait(&empty, &mutex, &t), 0);
    slots++;
    if (i % 2) CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
    CHECK_EQ(pthread_cond_signal(&full), 0);
    if (i % 2 == 0) CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  }
  return NULL;
}
static void Queue(const char* name) {
  (void)name;
  pthread_t give[kThreads], take[kThreads];
  slots = taken = 0;
  for (intptr_t i = 0; i < kThreads; i++) {
    give[i] = Start(Give, (void*)i);
    take[i] = Start(Take, (void*)i);
  }
  for (int i = 0; i < kThreads; i++) Join(give[i]), Join(take[i]);
  CHECK_EQ(taken, kThreads * kRounds);
  CHECK_EQ(slots, 0);
}

// Who waits for the mutex gets it from a thread that begins to wait for the condition.
static void* Releases(void* arg) {
  KeepKernelThread((intptr_t)arg);
  pthread_mutex_lock(&mutex);
  waiting = 1;
  while (slots == 0) {
    Moment();
    pthread_cond_wait(&full, &mutex);
  }
  waiting = 0;
  pthread_mutex_unlock(&mutex);
  return NULL;
}
static void* Fills(void* arg) {
  KeepKernelThread((intptr_t)arg);
  while (!*(volatile int*)&waiting) SleepMs(1);
  pthread_mutex_lock(&mutex);
  slots = 1;
  pthread_cond_signal(&full);
  pthread_mutex_unlock(&mutex);
  return NULL;
}
static void Release(const char* name) {
  (void)name;
  for (intptr_t i = 0; i < 4; i++) {
    slots = waiting = 0;
    pthread_t a = Start(Releases, (void*)(i & 1)), b = Start(Fills, (void*)(i >> 1));
    Join(a), Join(b);
  }
}

static void GiveBack(void* arg) {
  (void)arg;
  waiting--;
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);  // it is held again
}
static void* Waits(void* arg) {
  KeepKernelThread((intptr_t)arg);
  pthread_mutex_lock(&mutex);
  waiting++;
  pthread_cleanup_push(GiveBack, NULL);
  while (slots == 0) pthread_cond_wait(&full, &mutex);
  slots--;
  pthread_cleanup_pop(1);
  return NULL;
}
static int NowWaiting(void) {
  pthread_mutex_lock(&mutex);
  int n = waiting;
  pthread_mutex_unlock(&mutex);
  return n;
}
// One of two is cancelled while a signal is on its way: the other one gets it, or the first did.
static void Cancel(const char* name) {
  (void)name;
  for (intptr_t i = 0; i < 200; i++) {
    slots = 0;
    pthread_t a = Start(Waits, (void*)(i & 2)), b = Start(Waits, (void*)(i & 1));
    EVENTUALLY(NowWaiting() == 2);
    pthread_mutex_lock(&mutex);
    slots = 1;
    pthread_cond_signal(&full);
    if (i & 4) CHECK_EQ(pthread_cancel(a), 0);
    pthread_mutex_unlock(&mutex);
    if (!(i & 4)) pthread_cancel(a);
    int cancelled = Join(a) == PTHREAD_CANCELED;
    pthread_mutex_lock(&mutex);
    CHECK(cancelled || slots == 0);
    slots++;
    pthread_cond_signal(&full);
    pthread_mutex_unlock(&mutex);
    CHECK(Join(b) == NULL);
    CHECK_EQ(waiting, 0);
    CHECK_EQ(slots, cancelled);
  }
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"queue", Queue}, {"release", Release}, {"cancel", Cancel}};
  return RUN_PARTS(parts);
}
