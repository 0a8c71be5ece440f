// SPDX-License-Identifier: Apache-2.0
// Life of threads: results, every way of joining, detached threads, and the error of each misuse.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>
#include <sys/syscall.h>

#include "pthreads.h"

static atomic_int gate, running, ended;

static void* Returns(void* arg) { return arg; }
static void* Exits(void* arg) { pthread_exit(arg); }
static void* Waits(void* arg) {
  atomic_fetch_add(&running, 1);
  while (!gate) SleepMs(1);
  atomic_fetch_add(&ended, 1);
  return arg;
}
static void Reset(void) { gate = running = ended = 0; }

static void Results(const char* name) {
  (void)name;
  for (intptr_t i = 1; i < 300; i++) {
    CHECK(Join(Start(i % 2 ? Returns : Exits, (void*)i)) == (void*)i);
  }
  pthread_t t[50];
  for (intptr_t i = 0; i < 50; i++) t[i] = Start(Returns, (void*)i);
  for (intptr_t i = 49; i >= 0; i--) CHECK(Join(t[i]) == (void*)i);
  CHECK_EQ(pthread_join(Start(Returns, NULL), NULL), 0);
}

static void Joins(const char* name) {
  (void)name;
  Reset();
  void* result = &result;
  pthread_t t = Start(Waits, (void*)7);
  CHECK_EQ(pthread_tryjoin_np(t, &result), EBUSY);
  struct timespec when = In(CLOCK_REALTIME, 30);
  CHECK_EQ(pthread_timedjoin_np(t, &result, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_REALTIME, when));
  when = In(CLOCK_MONOTONIC, 30);
  CHECK_EQ(pthread_clockjoin_np(t, &result, CLOCK_MONOTONIC, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  when = In(CLOCK_REALTIME, 30);
  CHECK_EQ(pthread_clockjoin_np(t, &result, CLOCK_REALTIME, &when), ETIMEDOUT);
  when = In(CLOCK_REALTIME, -1000);
  CHECK_EQ(pthread_timedjoin_np(t, &result, &when), ETIMEDOUT);
  when.tv_sec = -5;
  CHECK_EQ(pthread_timedjoin_np(t, &result, &when), ETIMEDOUT);
  CHECK_EQ(pthread_clockjoin_np(t, &result, CLOCK_PROCESS_CPUTIME_ID, &when), EINVAL);
  CHECK(result == &result);
  gate = 1;
  when = In(CLOCK_REALTIME, kForeverMs);
  CHECK_EQ(pthread_timedjoin_np(t, &result, &when), 0);
  CHECK(result == (void*)7);
  t = Start(Waits, (void*)8);
  when = In(CLOCK_MONOTONIC, kForeverMs);
  CHECK_EQ(pthread_clockjoin_np(t, &result, CLOCK_MONOTONIC, &when), 0);
  CHECK(result == (void*)8);
  t = Start(Waits, (void*)9);
  int error = EBUSY;
  EVENTUALLY((error = pthread_tryjoin_np(t, &result)) != EBUSY);
  CHECK(error == 0 && result == (void*)9);
}

static pthread_t main_thread;
static void* JoinsMain(void* arg) {
  (void)arg;
  atomic_fetch_add(&running, 1);
  return (void*)(intptr_t)pthread_join(main_thread, NULL);
}

static void Misuse(const char* name) {
  (void)name;
  Reset();
  CHECK_EQ(pthread_join(pthread_self(), NULL), EDEADLK);
  main_thread = pthread_self();
  // A joiner that is cancelled leaves the thread as it was.
  pthread_t t = Start(JoinsMain, NULL);
  EVENTUALLY(running == 1);
  Moment();
  CHECK_EQ(pthread_cancel(t), 0);
  CHECK(Join(t) == PTHREAD_CANCELED);
  CHECK_EQ(pthread_join(pthread_self(), NULL), EDEADLK);
}

static void Detached(const char* name) {
  (void)name;
  Reset();
  pthread_attr_t attr;
  CHECK_EQ(pthread_attr_init(&attr), 0);
  CHECK_EQ(pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED), 0);
  CHECK_EQ(pthread_attr_setdetachstate(&attr, 77), EINVAL);
  pthread_t t;
  CHECK_EQ(pthread_create(&t, &attr, Waits, NULL), 0);
  EVENTUALLY(running == 1);
  CHECK_EQ(pthread_join(t, NULL), EINVAL);
  CHECK_EQ(pthread_detach(t), EINVAL);
  int error = pthread_tryjoin_np(t, NULL);  // the C library looks first whether it has ended
  CHECK(error == EBUSY || error == EINVAL);
  pthread_t other = Start(Waits, NULL);
  CHECK_EQ(pthread_detach(other), 0);
  EVENTUALLY(running == 2);
  CHECK_EQ(pthread_detach(other), EINVAL);
  gate = 1;
  EVENTUALLY(ended == 2);
  // One that has ended before it is detached.
  other = Start(Returns, NULL);
  Moment();
  CHECK_EQ(pthread_detach(other), 0);
  for (int i = 0; i < 500; i++) CHECK_EQ(pthread_create(&t, &attr, Waits, NULL), 0);
  EVENTUALLY(ended == 502);
  pthread_attr_destroy(&attr);
}

static void* DetachesItself(void* arg) {
  CHECK_EQ(pthread_detach(pthread_self()), 0);
  return Waits(arg);
}
// A thread may be asked about after its end, until it is joined.
static void Ended(const char* name) {
  (void)name;
  Reset();
  gate = 1;
  pthread_t t = Start(Waits, (void*)3);
  EVENTUALLY(ended == 1);
  Moment();
  CHECK_EQ(pthread_kill(t, 0), 0);
  CHECK_EQ(pthread_cancel(t), 0);
  CHECK(Join(t) == (void*)3);
  Start(DetachesItself, NULL);
  EVENTUALLY(ended == 2);
}

static void* Identity(void* arg) {
  pthread_t self = pthread_self();
  CHECK(pthread_equal(self, pthread_self()));
  CHECK(!pthread_equal(self, main_thread));
  *(pthread_t*)arg = self;
  return NULL;
}
static void Self(const char* name) {
  (void)name;
  main_thread = pthread_self();
  pthread_t seen, t = Start(Identity, &seen);
  Join(t);
  CHECK(pthread_equal(t, seen));
}

// Each thread starts two more: a tree of 255, whose root counts them.
static void* Tree(void* arg) {
  intptr_t depth = (intptr_t)arg;
  if (depth == 0) return (void*)1;
  pthread_t left = Start(Tree, (void*)(depth - 1)), right = Start(Tree, (void*)(depth - 1));
  return (void*)(1 + (intptr_t)Join(left) + (intptr_t)Join(right));
}
static void Trees(const char* name) {
  (void)name;
  CHECK_EQ((intptr_t)Join(Start(Tree, (void*)7)), 255);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"results", Results},   {"joins", Joins}, {"misuse", Misuse},
                               {"detached", Detached}, {"ended", Ended}, {"self", Self},
                               {"trees", Trees}};
  return RUN_PARTS(parts);
}
