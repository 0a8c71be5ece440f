// SPDX-License-Identifier: Apache-2.0
// Cancellation: out of every kind of wait, deferred, asynchronous, disabled, by the thread itself,
// and what runs on the way: cleanup handlers in their order, with the mutex of a wait held again.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pthreads.h"

static int ends[2], pair[2], listener, epoll_fd;
static pthread_mutex_t mutex;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static pthread_t sleeper;
static pid_t child;
static atomic_int entered, cleaned, gate;

static void OnCancel(void* arg) {
  (void)arg;
  cleaned++;
}
static void Unlock(void* arg) {
  (void)arg;
  // Error checking: fails unless this thread holds it.
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  cleaned++;
}

enum { kCalls = 26 };
static void Call(int which) {
  char c;
  struct iovec v = {&c, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  struct timespec hour = {3600, 0}, when = In(CLOCK_REALTIME, 3600000);
  struct timeval long_time = {3600, 0};
  struct pollfd p = {ends[0], POLLIN, 0};
  struct epoll_event event;
  sigset_t usr2 = SetOf(SIGUSR2, 0), none = SetOf(0, 0);
  siginfo_t info;
  int status;
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  switch (which) {
    case 0: (void)!read(ends[0], &c, 1); break;
    case 1: (void)!readv(ends[0], &v, 1); break;
    case 2: recv(pair[0], &c, 1, 0); break;
    case 3: recvfrom(pair[0], &c, 1, 0, NULL, NULL); break;
    case 4: recvmsg(pair[0], &m, 0); break;
    case 5: accept(listener, NULL, NULL); break;
    case 6: poll(&p, 1, -1); break;
    case 7: ppoll(&p, 1, NULL, &none); break;
    case 8: select(ends[0] + 1, &set, NULL, NULL, &long_time); break;
    case 9: pselect(ends[0] + 1, &set, NULL, NULL, NULL, NULL); break;
    case 10: epoll_wait(epoll_fd, &event, 1, -1); break;
    case 11: epoll_pwait(epoll_fd, &event, 1, -1, &none); break;
    case 12: nanosleep(&hour, NULL); break;
    case 13: clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL); break;
    case 14: sleep(3600); break;
    case 15: usleep(999999999); break;
    case 16: pause(); break;
    case 17: sem_wait(&sem); break;
    case 18: sem_timedwait(&sem, &when); break;
    case 19: pthread_join(sleeper, NULL); break;
    case 20: sigwaitinfo(&usr2, &info); break;
    case 21: sigwait(&usr2, &status); break;
    case 22: sigsuspend(&none); break;
    case 23: sigtimedwait(&usr2, &info, &hour); break;
    case 24: waitpid(child, &status, 0); break;
    case 25:
      for (;;) pthread_testcancel();
  }
  CheckFailed(__FILE__, __LINE__, "call %d came back: %s", which, strerror(errno));
}
static void* Calls(void* arg) {
  pthread_cleanup_push(OnCancel, NULL);
  pthread_cleanup_push(OnCancel, NULL);
  atomic_fetch_add(&entered, 1);
  Call((int)(intptr_t)arg);
  pthread_cleanup_pop(0);
  pthread_cleanup_pop(0);
  return NULL;
}
static void* Sleeper(void* arg) {
  while (!gate) SleepMs(2);
  return arg;
}
// Cancelled while they wait, and before they begin to.
static void Waits(const char* name) {
  (void)name;
  sleeper = Start(Sleeper, NULL);
  child = fork();
  CHECK(child >= 0);
  if (child == 0) WaitToBeKilled();
  for (int early = 0; early < 2; early++) {
    for (intptr_t i = 0; i < kCalls; i++) {
      entered = cleaned = 0;
      pthread_t t = Start(Calls, (void*)i);
      if (!early) {
        EVENTUALLY(entered == 1);
        SleepMs(3);
      }
      CHECK_EQ(pthread_cancel(t), 0);
      CHECK_MSG(Join(t) == PTHREAD_CANCELED, "call %d", (int)i);
      CHECK_MSG(cleaned == 2 || (early && entered == 0), "call %d: %d cleaned", (int)i, cleaned);
    }
  }
  kill(child, SIGKILL);
  CHECK(waitpid(child, NULL, 0) == child);
  gate = 1;
  Join(sleeper);
}

static void* WaitsCond(void* arg) {
  struct timespec when = In(CLOCK_REALTIME, 3600000);
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  pthread_cleanup_push(Unlock, NULL);
  atomic_fetch_add(&entered, 1);
  for (;;)
    if (arg)
      pthread_cond_timedwait(&cond, &mutex, &when);
    else
      pthread_cond_wait(&cond, &mutex);
  pthread_cleanup_pop(0);
  return NULL;
}
static void Cond(const char* name) {
  (void)name;
  entered = cleaned = 0;
  pthread_t t[20];
  for (int i = 0; i < 20; i++) t[i] = Start(WaitsCond, i % 2 ? &cond : NULL);
  EVENTUALLY(entered == 20);
  // Some while the mutex is taken: they must wait for it before they clean up.
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  for (int i = 0; i < 10; i++) CHECK_EQ(pthread_cancel(t[i]), 0);
  Moment();
  CHECK_EQ(cleaned, 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  for (int i = 10; i < 20; i++) CHECK_EQ(pthread_cancel(t[i]), 0);
  for (int i = 0; i < 20; i++) CHECK(Join(t[i]) == PTHREAD_CANCELED);
  CHECK_EQ(cleaned, 20);
  CHECK_EQ(pthread_mutex_trylock(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

static void* Disabled(void* arg) {
  int old;
  CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old) == 0 && old == PTHREAD_CANCEL_ENABLE);
  CHECK_EQ(pthread_setcancelstate(99, NULL), EINVAL);
  CHECK_EQ(pthread_setcanceltype(99, NULL), EINVAL);
  entered = 1;
  while (!gate) SleepMs(1);
  SleepMs(2);
  pthread_testcancel();
  entered = 2;
  CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old) == 0 && old == PTHREAD_CANCEL_DISABLE);
  pthread_testcancel();
  return arg;
}
static void* Computes(void* arg) {
  int old;
  CHECK(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old) == 0 &&
        old == PTHREAD_CANCEL_DEFERRED);
  pthread_cleanup_push(OnCancel, NULL);
  entered = 1;
  if (arg) pthread_cancel(pthread_self());
  for (volatile unsigned long n = 0;; n++) {
  }
  pthread_cleanup_pop(0);
  return NULL;
}
static void* NoPoint(void* arg) {
  entered = 1;
  while (!gate) {
  }
  entered = 2;  // a deferred request has no effect so far
  pthread_testcancel();
  return arg;
}
static void Types(const char* name) {
  (void)name;
  static const ThreadBody bodies[] = {Disabled, NoPoint, Computes, Computes};
  for (int i = 0; i < 4; i++) {
    entered = gate = cleaned = 0;
    pthread_t t = Start(bodies[i], i == 3 ? &gate : NULL);
    EVENTUALLY(entered == 1);
    CHECK_EQ(pthread_cancel(t), 0);
    SleepMs(3);
    gate = 1;
    CHECK(Join(t) == PTHREAD_CANCELED);
    CHECK_EQ(entered, i < 2 ? 2 : 1);
    CHECK_EQ(cleaned, i < 2 ? 0 : 1);
  }
}

static int order[8], ordered;
static void Notes(void* arg) {
  sched_yield();
  SleepMs(1);  // handlers may block; a second request is no matter
  order[ordered++] = (int)(intptr_t)arg;
}
static void* Ordered(void* arg) {
  pthread_cleanup_push(Notes, (void*)1);
  pthread_cleanup_push(Notes, (void*)2);
  pthread_cleanup_push(Notes, (void*)3);
  pthread_cleanup_pop(0);
  pthread_cleanup_push(Notes, (void*)4);
  pthread_cleanup_pop(1);
  pthread_cleanup_push(Notes, (void*)5);
  if (arg) pthread_exit((void*)77);
  pthread_cancel(pthread_self());
  pthread_cancel(pthread_self());
  pthread_testcancel();
  pthread_cleanup_pop(0);
  pthread_cleanup_pop(0);
  pthread_cleanup_pop(0);
  return NULL;
}
static void Order(const char* name) {
  (void)name;
  for (int exits = 0; exits < 2; exits++) {
    ordered = 0;
    CHECK(Join(Start(Ordered, exits ? order : NULL)) == (exits ? (void*)77 : PTHREAD_CANCELED));
    CHECK(ordered == 4 && order[0] == 4 && order[1] == 5 && order[2] == 2 && order[3] == 1);
  }
}

int main(int argc, char** argv) {
  pthread_mutexattr_t a;
  pthread_mutexattr_init(&a);
  pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_init(&mutex, &a);
  sem_init(&sem, 0, 0);
  sigset_t block = SetOf(SIGUSR2, 0);
  pthread_sigmask(SIG_BLOCK, &block, NULL);
  CHECK(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(listen(listener, 1) == 0);
  epoll_fd = epoll_create1(0);
  struct epoll_event event = {EPOLLIN, {NULL}};
  CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ends[0], &event) == 0);
  static const Part parts[] = {
      {"waits", Waits}, {"cond", Cond}, {"types", Types}, {"order", Order}};
  return RUN_PARTS(parts);
}
