// SPDX-License-Identifier: Apache-2.0
// What the tests of threads share. None of them depends on how long something takes: a thread that
// is expected to wait gets a moment to do so, and the test is right either way.
#ifndef UNDERGO_TESTS_PTHREADS_H_
#define UNDERGO_TESTS_PTHREADS_H_

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "parts.h"

enum { kMomentMs = 20, kForeverMs = 15000 };

typedef void* (*ThreadBody)(void*);
__attribute__((unused)) static pthread_t Start(ThreadBody body, void* arg) {
  pthread_t t;
  int error = pthread_create(&t, NULL, body, arg);
  CHECK_MSG(error == 0, "pthread_create: %s", strerror(error));
  return t;
}
__attribute__((unused)) static void* Join(pthread_t t) {
  void* result;
  int error = pthread_join(t, &result);
  CHECK_MSG(error == 0, "pthread_join: %s", strerror(error));
  return result;
}

// Enough for another thread to reach the call in which it waits, as a rule.
static inline void Moment(void) { SleepMs(kMomentMs); }

// Waits until a condition holds that another thread makes true.
#define EVENTUALLY(cond)                                                        \
  do {                                                                          \
    for (int left_ = kForeverMs; !(cond); left_--) {                            \
      if (left_ == 0) CheckFailed(__FILE__, __LINE__, "never came: %s", #cond); \
      SleepMs(1);                                                               \
    }                                                                           \
  } while (0)

// For a child process that is to be killed: it does not outlive a test that failed for long.
__attribute__((noreturn, unused)) static void WaitToBeKilled(void) {
  alarm(60);
  for (;;) pause();
}

// A point in time, in so many milliseconds.
__attribute__((unused)) static struct timespec In(clockid_t clock, long ms) {
  struct timespec t;
  clock_gettime(clock, &t);
  t.tv_sec += ms / 1000;
  t.tv_nsec += ms % 1000 * 1000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  if (t.tv_nsec < 0) t.tv_nsec += 1000000000, t.tv_sec--;
  return t;
}
// A point that has come; on clocks that need not tick the same way, with a millisecond to spare.
static inline int Reached(clockid_t clock, struct timespec t) {
  struct timespec now = In(clock, 1);
  return now.tv_sec > t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec >= t.tv_nsec);
}

static inline sigset_t SetOf(int a, int b) {
  sigset_t set;
  sigemptyset(&set);
  if (a) sigaddset(&set, a);
  if (b) sigaddset(&set, b);
  return set;
}

#endif  // UNDERGO_TESTS_PTHREADS_H_
