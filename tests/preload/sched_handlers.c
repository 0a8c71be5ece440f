// SPDX-License-Identifier: Apache-2.0
// Handlers installed by each of the functions for it, for signals that find their thread asleep:
// they run as often as was sent, with what was asked for, and those for one signal run once.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>

#include "pthreads.h"

static atomic_int handled, stop;
static _Atomic(pthread_t) where;

static void Plain(int sig) {
  CHECK_EQ(sig, SIGURG);
  where = pthread_self();
  handled++;
}
static void WithInfo(int sig, siginfo_t* info, void* context) {
  CHECK(sig == SIGURG && info->si_signo == sig && context != NULL);
  CHECK(info->si_pid == getpid() && info->si_code <= 0);
  where = pthread_self();
  handled++;
}

static void* Sleeps(void* arg) {
  while (!stop) usleep(200000);
  return arg;
}
static void* Waits(void* arg) {
  static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&m);
  while (!stop) {
    struct timespec t = In(CLOCK_REALTIME, 200);
    pthread_cond_timedwait(&c, &m, &t);
  }
  pthread_mutex_unlock(&m);
  return arg;
}

enum { kSigaction, kSiginfo, kSignal, kSysv, kBsd, kSigset, kWays };
static void Install(int way) {
  struct sigaction a = {.sa_flags = SA_RESTART};
  switch (way) {
    case kSigaction: a.sa_handler = Plain; break;
    case kSiginfo: a.sa_sigaction = WithInfo, a.sa_flags |= SA_SIGINFO; break;
    case kSignal: CHECK(signal(SIGURG, Plain) != SIG_ERR); return;
    case kSysv: CHECK(sysv_signal(SIGURG, Plain) != SIG_ERR); return;
    case kBsd: CHECK(ssignal(SIGURG, Plain) != SIG_ERR); return;
    case kSigset: CHECK(sigset(SIGURG, Plain) != SIG_ERR); return;
  }
  CHECK_EQ(sigaction(SIGURG, &a, NULL), 0);
}
static void Ways(const char* name) {
  (void)name;
  stop = 0;
  pthread_t t[2] = {Start(Sleeps, NULL), Start(Waits, NULL)};
  for (int way = 0; way < kWays; way++) {
    for (int i = 0; i < 6; i++) {
      Install(way);
      handled = 0;
      if (i < 2) Moment();  // asleep by then, as a rule
      if (i % 3 == 2)
        CHECK_EQ(kill(getpid(), SIGURG), 0);
      else
        CHECK_EQ(pthread_kill(t[i % 2], SIGURG), 0);
      EVENTUALLY(handled == 1);
      if (i % 3 != 2) CHECK(pthread_equal(where, t[i % 2]));
    }
    SleepMs(2);
    CHECK_MSG(handled == 1, "way %d: one signal, handled %d times", way, handled);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) Join(t[i]);
}

// With SA_RESETHAND: once, then the default, which ignores this one.
static void Once(const char* name) {
  (void)name;
  stop = 0;
  pthread_t t[2] = {Start(Sleeps, NULL), Start(Waits, NULL)};
  for (int i = 0; i < 8; i++) {
    struct sigaction a = {.sa_sigaction = WithInfo, .sa_flags = SA_RESTART | SA_SIGINFO}, old;
    a.sa_flags |= (int)SA_RESETHAND;
    handled = 0;
    CHECK_EQ(sigaction(SIGURG, &a, NULL), 0);
    CHECK_EQ(sigaction(SIGURG, NULL, &old), 0);
    CHECK(old.sa_sigaction == WithInfo && (old.sa_flags & (int)SA_RESETHAND) != 0);
    if (i < 4) Moment();
    CHECK_EQ(pthread_kill(t[i % 2], SIGURG), 0);
    EVENTUALLY(handled == 1);
    for (int k = 0; k < 5; k++) CHECK_EQ(pthread_kill(t[k % 2], SIGURG), 0);
    SleepMs(1);
    CHECK_EQ(handled, 1);
    CHECK_EQ(sigaction(SIGURG, NULL, &old), 0);
    CHECK(old.sa_handler == SIG_DFL);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"ways", Ways}, {"once", Once}};
  return RUN_PARTS(parts);
}
