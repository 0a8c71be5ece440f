// SPDX-License-Identifier: Apache-2.0
// Timers of the process: by signal to it or to one thread, by a thread of the C library's own, on
// clocks of CPU time; interval timers; notification of message queues.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <mqueue.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "pthreads.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int fired, last_value;
static atomic_int handled, value_seen, gate;
static _Atomic(pthread_t) handler_thread;

static const struct itimerspec kOften = {{0, 3000000}, {0, 3000000}};

// Runs on a thread that glibc made: uses what the program's threads wait for.
static void Notify(union sigval v) {
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  fired++;
  last_value = v.sival_int;
  CHECK_EQ(pthread_cond_broadcast(&cond), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  free(malloc(100));
}
static void* WaitsFired(void* arg) {
  pthread_mutex_lock(&mutex);
  while (fired < 5) CHECK_EQ(pthread_cond_wait(&cond, &mutex), 0);
  pthread_mutex_unlock(&mutex);
  return arg;
}
static void ByThread(const char* name) {
  (void)name;
  struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = Notify};
  e.sigev_value.sival_int = 42;
  timer_t timer;
  pthread_t t[5];
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &e, &timer), 0);
  for (int i = 0; i < 5; i++) t[i] = Start(WaitsFired, NULL);
  CHECK_EQ(timer_settime(timer, 0, &kOften, NULL), 0);
  for (int i = 0; i < 5; i++) Join(t[i]);
  CHECK_EQ(last_value, 42);
  CHECK_EQ(timer_delete(timer), 0);
  CHECK(timer_settime(timer, 0, &kOften, NULL) == -1 && errno == EINVAL);
}

static void OnTimer(int sig, siginfo_t* info, void* context) {
  (void)sig, (void)context;
  CHECK_EQ(info->si_code, SI_TIMER);
  value_seen = info->si_value.sival_int;
  handler_thread = pthread_self();
  handled++;
}
static void* Owner(void* arg) {
  const int how = (int)(intptr_t)arg;
  struct sigevent e = {.sigev_notify = how ? SIGEV_THREAD_ID : SIGEV_SIGNAL,
                       .sigev_signo = SIGUSR1};
  e.sigev_value.sival_int = 77;
  if (how) e._sigev_un._tid = gettid();
  timer_t timer;
  CHECK_EQ(timer_create(CLOCK_REALTIME, &e, &timer), 0);
  struct itimerspec got;
  CHECK_EQ(timer_settime(timer, 0, &kOften, NULL), 0);
  CHECK(timer_gettime(timer, &got) == 0 && got.it_interval.tv_nsec == 3000000);
  while (handled < 10) {
    if (how == 2)
      for (volatile int i = 0; i < 100000; i++) {
      }
    else
      SleepMs(1);
    if (how && handled) CHECK(pthread_equal(handler_thread, pthread_self()));
  }
  CHECK_EQ(value_seen, 77);
  CHECK(timer_getoverrun(timer) >= 0);
  CHECK_EQ(timer_delete(timer), 0);
  return NULL;
}
static void* Other(void* arg) {
  while (!gate) SleepMs(1);
  return arg;
}
static void BySignal(const char* name) {
  (void)name;
  struct sigaction act = {.sa_sigaction = OnTimer, .sa_flags = SA_SIGINFO | SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  for (intptr_t how = 0; how < 3; how++) {
    handled = gate = 0;
    pthread_t others[3], t;
    for (int i = 0; i < 3; i++) others[i] = Start(Other, NULL);
    t = Start(Owner, (void*)how);
    Join(t);
    gate = 1;
    for (int i = 0; i < 3; i++) Join(others[i]);
    Moment();  // one may still be on its way
  }
}

static void OnAlarm(int sig) {
  (void)sig;
  handled++;
}
static void* Computes(void* arg) {
  while (!gate)
    for (volatile int i = 0; i < 100000; i++) {
    }
  return arg;
}
static void Intervals(const char* name) {
  (void)name;
  static const struct {
    int which, signal;
  } kinds[] = {{ITIMER_REAL, SIGALRM}, {ITIMER_VIRTUAL, SIGVTALRM}, {ITIMER_PROF, SIGPROF}};
  for (int i = 0; i < 3; i++) {
    handled = gate = 0;
    struct sigaction act = {.sa_handler = OnAlarm, .sa_flags = SA_RESTART};
    CHECK_EQ(sigaction(kinds[i].signal, &act, NULL), 0);
    struct itimerval often = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
    pthread_t t[3];
    for (int k = 0; k < 3; k++) t[k] = Start(k ? Computes : Other, NULL);
    CHECK_EQ(setitimer(kinds[i].which, &often, NULL), 0);
    EVENTUALLY(handled >= 5);
    CHECK_EQ(setitimer(kinds[i].which, &off, NULL), 0);
    gate = 1;
    for (int k = 0; k < 3; k++) Join(t[k]);
  }
  handled = 0;
  alarm(1);
  for (int i = 0; handled == 0; i++) {
    CHECK(i < kForeverMs);
    SleepMs(1);
  }
}

// A timer on the CPU time of one thread comes only when that thread has computed so long.
static void* CpuTimer(void* arg) {
  clockid_t clock;
  CHECK_EQ(pthread_getcpuclockid(pthread_self(), &clock), 0);
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  e.sigev_value.sival_int = 5;
  timer_t timer;
  CHECK_EQ(timer_create(clock, &e, &timer), 0);
  struct itimerspec t = {{0, 0}, {0, 30000000}};
  CHECK_EQ(timer_settime(timer, 0, &t, NULL), 0);
  handled = 0;
  SleepMs(60);
  CHECK_EQ(handled, 0);
  struct timespec used;
  while (!handled) {
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0 && used.tv_sec < 5);
  }
  CHECK(used.tv_sec > 0 || used.tv_nsec > 20000000);
  CHECK_EQ(timer_delete(timer), 0);
  return arg;
}
static void CpuTime(const char* name) {
  (void)name;
  struct sigaction act = {.sa_sigaction = OnTimer, .sa_flags = SA_SIGINFO | SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  Join(Start(CpuTimer, NULL));
}

static void Queue(const char* name) {
  (void)name;
  char path[40];
  snprintf(path, sizeof path, "/undergo-notify-%d", getpid());
  struct mq_attr attr = {0, 4, 32, 0, {0}};
  mqd_t q = mq_open(path, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
  if (q < 0) return;
  mq_unlink(path);
  struct sigaction act = {.sa_handler = OnAlarm, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
  for (int i = 0; i < 6; i++) {
    struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = Notify};
    e.sigev_value.sival_int = i;
    if (i % 2) e = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    fired = handled = 0;
    CHECK_EQ(mq_notify(q, &e), 0);
    CHECK(mq_notify(q, &e) == -1 && errno == EBUSY);
    CHECK_EQ(mq_send(q, "text", 4, 0), 0);
    for (int k = 0; k < kForeverMs; k++) {
      pthread_mutex_lock(&mutex);
      int done = fired;
      pthread_mutex_unlock(&mutex);
      if (done || handled) break;
      SleepMs(1);
    }
    CHECK(i % 2 ? handled == 1 : fired == 1 && last_value == i);
    char text[32];
    CHECK_EQ(mq_receive(q, text, sizeof text, NULL), 4);
  }
  mq_close(q);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"by_thread", ByThread},
                               {"by_signal", BySignal},
                               {"intervals", Intervals},
                               {"cpu_time", CpuTime},
                               {"queue", Queue}};
  return RUN_PARTS(parts);
}
