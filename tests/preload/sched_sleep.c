// SPDX-License-Identifier: Apache-2.0
// Sleeps: never too short, on every clock, in order when many sleep, interrupted by a signal with
// the rest of the time told.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <poll.h>
#include <stdatomic.h>
#include <sys/select.h>
#include <threads.h>

#include "pthreads.h"

static atomic_int entered, handled;
static void OnSignal(int sig) {
  (void)sig;
  handled++;
}

// Each must last; `when` is taken before.
#define LASTS(ms, call)                                                 \
  do {                                                                  \
    struct timespec when_ = In(CLOCK_MONOTONIC, ms);                    \
    CHECK_EQ(call, 0);                                                  \
    CHECK_MSG(Reached(CLOCK_MONOTONIC, when_), "%s came early", #call); \
  } while (0)
static void* Sleeps(void* arg) {
  struct timespec t = {0, 12000000}, rest = {7, 7}, at;
  for (int i = 0; i < 3; i++) {
    LASTS(12, nanosleep(&t, &rest));
    LASTS(12, clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &rest));
    LASTS(12, clock_nanosleep(CLOCK_REALTIME, 0, &t, NULL));
    LASTS(12, clock_nanosleep(CLOCK_BOOTTIME, 0, &t, NULL));
    at = In(CLOCK_MONOTONIC, 12);
    LASTS(12, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL));
    LASTS(0, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL));
    at = In(CLOCK_REALTIME, 12);
    CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &at, NULL), 0);
    CHECK(Reached(CLOCK_REALTIME, at));
    LASTS(12, usleep(12000));
    LASTS(12, thrd_sleep(&t, NULL));
    LASTS(12, poll(NULL, 0, 12));
    struct timeval v = {0, 12000};
    LASTS(12, select(0, NULL, NULL, NULL, &v));
    CHECK(rest.tv_sec == 7 && rest.tv_nsec == 7);
  }
  return arg;
}
static void Each(const char* name) {
  (void)name;
  pthread_t t[20];
  for (int i = 0; i < 20; i++) t[i] = Start(Sleeps, NULL);
  struct timespec when = In(CLOCK_MONOTONIC, 1000);
  CHECK_EQ(sleep(1), 0);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  for (int i = 0; i < 20; i++) Join(t[i]);
}

static void Codes(const char* name) {
  (void)name;
  struct timespec bad = {0, 1000000000}, zero = {0, 0}, negative = {-1, 0};
  CHECK(nanosleep(&bad, NULL) == -1 && errno == EINVAL);
  CHECK(nanosleep(&negative, NULL) == -1 && errno == EINVAL);
  CHECK_EQ(nanosleep(&zero, NULL), 0);
  CHECK_EQ(usleep(0), 0);
  CHECK_EQ(sleep(0), 0);
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, NULL), EINVAL);
  CHECK_EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &zero, NULL), EINVAL);
  CHECK_EQ(clock_nanosleep(77, 0, &zero, NULL), EINVAL);
  bad.tv_nsec = -1;
  CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &bad, NULL), EINVAL);
}

// 300 sleepers with times 60 ms apart in groups: no group before the one with less time.
enum { kGroups = 5, kGroup = 60 };
static atomic_int done[kGroups];
static struct timespec start;
static void* Ordered(void* arg) {
  const int group = (int)(intptr_t)arg;
  struct timespec until = start;
  until.tv_nsec += 60000000L * group;
  until.tv_sec += until.tv_nsec / 1000000000, until.tv_nsec %= 1000000000;
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL), 0);
  CHECK(Reached(CLOCK_MONOTONIC, until));
  atomic_fetch_add(&done[group], 1);
  return NULL;
}
static void Many(const char* name) {
  (void)name;
  pthread_t t[kGroups * kGroup];
  start = In(CLOCK_MONOTONIC, 50);
  for (intptr_t i = 0; i < kGroups * kGroup; i++)
    t[i] = Start(Ordered, (void*)(kGroups - 1 - i % kGroups));
  for (int i = 0; i < kGroups * kGroup; i++) Join(t[i]);
  for (int i = 0; i < kGroups; i++) CHECK_EQ(done[i], kGroup);
}

// A signal ends a sleep and tells what is left; the sleeper goes on with that.
static void* Interrupted(void* arg) {
  const int how = (int)(intptr_t)arg;
  struct timespec t = {0, 150000000}, rest = {-1, -1}, end = In(CLOCK_MONOTONIC, 150);
  int hits = 0;
  atomic_fetch_add(&entered, 1);
  for (;;) {
    int error;
    if (how == 0)
      error = nanosleep(&t, &rest) == 0 ? 0 : errno;
    else if (how == 1)
      error = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &rest);
    else
      error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
    if (error == 0) break;
    CHECK_EQ(error, EINTR);
    hits++;
    if (how < 2) {
      CHECK(rest.tv_sec == 0 && rest.tv_nsec >= 0 && rest.tv_nsec <= t.tv_nsec);
      t = rest;
    }
  }
  CHECK(Reached(CLOCK_MONOTONIC, end));
  return (void*)(intptr_t)hits;
}
static void* LongSleep(void* arg) {
  atomic_fetch_add(&entered, 1);
  unsigned left = sleep(1000);
  CHECK(left > 900 && left <= 1000);
  CHECK(usleep(900000000) == -1 && errno == EINTR);
  CHECK(poll(NULL, 0, 1000000) == -1 && errno == EINTR);
  atomic_fetch_sub(&entered, 1);
  return arg;
}
static void Signals(const char* name) {
  (void)name;
  // SA_RESTART does not apply to sleeps.
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  for (intptr_t how = 0; how < 3; how++) {
    entered = handled = 0;
    pthread_t t = Start(Interrupted, (void*)how);
    EVENTUALLY(entered == 1);
    for (int i = 0; i < 3; i++) {
      SleepMs(20);
      CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
    }
    intptr_t hits = (intptr_t)Join(t);
    CHECK_MSG(hits >= 1 && hits <= 3, "%d interruptions", (int)hits);
    EVENTUALLY(handled == 3);
  }
  entered = 0;
  pthread_t t = Start(LongSleep, NULL);
  EVENTUALLY(entered == 1);
  while (entered == 1) {
    SleepMs(5);
    CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
  }
  Join(t);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"each", Each}, {"codes", Codes}, {"many", Many}, {"signals", Signals}};
  return RUN_PARTS(parts);
}
