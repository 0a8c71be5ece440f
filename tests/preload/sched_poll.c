// SPDX-License-Identifier: Apache-2.0
// poll, ppoll, select, pselect and epoll from many threads: the same descriptor watched in several
// ways at once, edges and single shots, timeouts, signal masks for the time of the wait.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "pthreads.h"

static int ends[2], quiet[2], ep;
static atomic_int woken, entered, handled;
static void OnSignal(int sig) {
  (void)sig;
  handled++;
}

static void Timeouts(const char* name) {
  (void)name;
  struct pollfd p = {quiet[0], POLLIN, 0};
  struct timespec t = {0, 25000000}, when;
  struct timeval v;
  struct epoll_event e;
  fd_set set;
#define LASTS(ms, call)                                                \
  do {                                                                 \
    when = In(CLOCK_MONOTONIC, ms);                                    \
    CHECK_EQ(call, 0);                                                 \
    CHECK_MSG(Reached(CLOCK_MONOTONIC, when), "%s came early", #call); \
  } while (0)
  LASTS(25, poll(&p, 1, 25));
  LASTS(25, ppoll(&p, 1, &t, NULL));
  FD_ZERO(&set);
  FD_SET(quiet[0], &set);
  v = (struct timeval){0, 25000};
  LASTS(25, select(quiet[0] + 1, &set, NULL, NULL, &v));
  CHECK(!FD_ISSET(quiet[0], &set) && v.tv_sec == 0 && v.tv_usec == 0);
  FD_SET(quiet[0], &set);
  LASTS(25, pselect(quiet[0] + 1, &set, NULL, NULL, &t, NULL));
  CHECK(t.tv_nsec == 25000000);
  LASTS(25, epoll_wait(ep, &e, 1, 25));
  LASTS(25, epoll_pwait2(ep, &e, 1, &t, NULL));
  LASTS(0, poll(&p, 1, 0));
  LASTS(0, epoll_wait(ep, &e, 1, 0));
  p.fd = 9999;
  CHECK(poll(&p, 1, -1) == 1 && p.revents == POLLNVAL);
  p.fd = -1;
  LASTS(10, poll(&p, 1, 10));
  CHECK(epoll_wait(ep, &e, 0, 0) == -1 && errno == EINVAL);
  CHECK(epoll_wait(quiet[0], &e, 1, 0) == -1 && errno == EINVAL);
  FD_ZERO(&set);
  FD_SET(40, &set);
  CHECK(select(41, &set, NULL, NULL, NULL) == -1 && errno == EBADF);
  p = (struct pollfd){ends[1], POLLIN | POLLOUT, 0};
  CHECK(poll(&p, 1, -1) == 1 && p.revents == POLLOUT);
}

// One byte wakes all that look at it, in whatever way; none takes it.
static void* Looks(void* arg) {
  const int how = (int)((intptr_t)arg % 5);
  struct pollfd p[3] = {{quiet[0], POLLIN, 0}, {-1, 0, 0}, {ends[0], POLLIN, 0}};
  struct epoll_event e = {EPOLLIN, {.u64 = 77}};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  FD_SET(quiet[0], &set);
  int own = epoll_create1(0);
  atomic_fetch_add(&entered, 1);
  switch (how) {
    case 0: CHECK(poll(p, 3, -1) == 1 && p[2].revents == POLLIN && p[0].revents == 0); break;
    case 1: CHECK(ppoll(p, 3, NULL, NULL) == 1 && p[2].revents == POLLIN); break;
    case 2: CHECK(select(1000, &set, NULL, NULL, NULL) == 1 && FD_ISSET(ends[0], &set)); break;
    case 3: CHECK(pselect(1000, &set, NULL, NULL, NULL, NULL) == 1); break;
    case 4:
      CHECK_EQ(epoll_ctl(own, EPOLL_CTL_ADD, ends[0], &e), 0);
      CHECK(epoll_wait(own, &e, 1, -1) == 1 && e.data.u64 == 77 && e.events == EPOLLIN);
  }
  close(own);
  atomic_fetch_add(&woken, 1);
  return NULL;
}
static void Wakes(const char* name) {
  (void)name;
  pthread_t t[40];
  for (int round = 0; round < 5; round++) {
    entered = woken = 0;
    for (intptr_t i = 0; i < 40; i++) t[i] = Start(Looks, (void*)i);
    EVENTUALLY(entered == 40);
    Moment();
    CHECK_EQ(woken, 0);
    char c;
    CHECK_EQ(write(ends[1], "x", 1), 1);
    for (int i = 0; i < 40; i++) Join(t[i]);
    CHECK_EQ(read(ends[0], &c, 1), 1);
  }
}

// A server of several threads over one epoll: every message is answered once.
enum { kConnections = 60, kMessages = 30, kServers = 4 };
static int sides[kConnections][2], server_ep;
static unsigned mode;
static void* Serves(void* arg) {
  struct epoll_event e[8];
  for (;;) {
    int n = epoll_wait(server_ep, e, 8, -1);
    CHECK_MSG(n > 0, "epoll_wait: %d, %s", n, strerror(errno));
    for (int i = 0; i < n; i++) {
      if (e[i].data.u32 == 9999) return arg;
      const int fd = sides[e[i].data.u32][0];
      char c[16];
      ssize_t got;
      while ((got = recv(fd, c, sizeof c, MSG_DONTWAIT)) > 0)
        CHECK_EQ(send(fd, c, (size_t)got, 0), got);
      CHECK(got == -1 && errno == EAGAIN);
      if (mode & EPOLLONESHOT) {
        e[i].events = EPOLLIN | mode;
        CHECK_EQ(epoll_ctl(server_ep, EPOLL_CTL_MOD, fd, &e[i]), 0);
      }
    }
  }
}
static void* Client(void* arg) {
  const int fd = sides[(intptr_t)arg][1];
  for (int i = 0; i < kMessages; i++) {
    char out = (char)i, in;
    CHECK_EQ(write(fd, &out, 1), 1);
    struct pollfd p = {fd, POLLIN, 0};
    if (i % 2) CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK_EQ(read(fd, &in, 1), 1);
    CHECK_EQ(in, out);
  }
  return NULL;
}
static void Servers(const char* name) {
  (void)name;
  static const unsigned modes[] = {0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT,
                                   EPOLLEXCLUSIVE};
  for (int k = 0; k < 5; k++) {
    mode = modes[k];
    server_ep = epoll_create1(0);
    int stop = eventfd(1, 0);
    pthread_t s[kServers], c[kConnections];
    for (unsigned i = 0; i < kConnections; i++) {
      CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sides[i]), 0);
      struct epoll_event e = {EPOLLIN | mode, {.u32 = i}};
      CHECK_EQ(epoll_ctl(server_ep, EPOLL_CTL_ADD, sides[i][0], &e), 0);
    }
    for (int i = 0; i < kServers; i++) s[i] = Start(Serves, NULL);
    for (intptr_t i = 0; i < kConnections; i++) c[i] = Start(Client, (void*)i);
    for (int i = 0; i < kConnections; i++) Join(c[i]);
    struct epoll_event e = {EPOLLIN, {.u32 = 9999}};
    CHECK_EQ(epoll_ctl(server_ep, EPOLL_CTL_ADD, stop, &e), 0);
    for (int i = 0; i < kServers; i++) Join(s[i]);
    for (int i = 0; i < kConnections; i++) close(sides[i][0]), close(sides[i][1]);
    close(server_ep), close(stop);
  }
}

// An epoll in an epoll; descriptors added while somebody waits; signalfd and timerfd in one set.
static void* Nested(void* arg) {
  int outer = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
  struct epoll_event e = {EPOLLIN, {.u32 = 1}};
  CHECK_EQ(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &e), 0);
  e.data.u32 = 2;
  CHECK_EQ(epoll_ctl(outer, EPOLL_CTL_ADD, timer, &e), 0);
  struct itimerspec soon = {{0, 0}, {0, 5000000}};
  CHECK_EQ(timerfd_settime(timer, 0, &soon, NULL), 0);
  CHECK(epoll_wait(outer, &e, 1, -1) == 1 && e.data.u32 == 2);
  uint64_t n;
  CHECK_EQ(read(timer, &n, sizeof n), sizeof n);
  entered = 1;
  CHECK(epoll_wait(outer, &e, 1, -1) == 1 && e.data.u32 == 1);
  close(outer), close(timer);
  return arg;
}
static void Nesting(const char* name) {
  (void)name;
  entered = 0;
  pthread_t t = Start(Nested, NULL);
  EVENTUALLY(entered == 1);
  Moment();
  int late = eventfd(0, 0);
  struct epoll_event e = {EPOLLIN, {.u32 = 5}};
  CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, late, &e), 0);
  CHECK_EQ(eventfd_write(late, 1), 0);
  Join(t);
  close(late);
  sigset_t usr2 = SetOf(SIGUSR2, 0);
  int fd = signalfd(-1, &usr2, 0);
  CHECK(fd >= 0 && kill(getpid(), SIGUSR2) == 0);
  struct pollfd p = {fd, POLLIN, 0};
  struct signalfd_siginfo info;
  CHECK(poll(&p, 1, -1) == 1 && read(fd, &info, sizeof info) == sizeof info);
  CHECK_EQ(info.ssi_signo, SIGUSR2);
  close(fd);
}

// The mask holds for the time of the wait only: a blocked signal comes in, and ends the wait.
static void* WaitsMasked(void* arg) {
  const int how = (int)(intptr_t)arg;
  struct pollfd p = {quiet[0], POLLIN, 0};
  struct epoll_event e;
  sigset_t open, block = SetOf(SIGUSR1, 0), now;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &block, &open), 0);
  sigdelset(&open, SIGUSR1);
  entered = 1;
  int r = how == 0   ? ppoll(&p, 1, NULL, &open)
          : how == 1 ? pselect(0, NULL, NULL, NULL, NULL, &open)
                     : epoll_pwait(ep, &e, 1, -1, &open);
  CHECK(r == -1 && errno == EINTR);
  CHECK_EQ(handled, 1);
  CHECK(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 1);
  return NULL;
}
static void Masks(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = OnSignal};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  for (int pending = 0; pending < 2; pending++) {
    for (intptr_t how = 0; how < 3; how++) {
      entered = handled = 0;
      pthread_t t = Start(WaitsMasked, (void*)how);
      EVENTUALLY(entered == 1);
      if (!pending) Moment();
      CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
      Join(t);
    }
  }
}

int main(int argc, char** argv) {
  sigset_t block = SetOf(SIGUSR2, 0);
  pthread_sigmask(SIG_BLOCK, &block, NULL);
  CHECK(pipe(ends) == 0 && pipe(quiet) == 0 && (ep = epoll_create1(0)) >= 0);
  struct epoll_event e = {EPOLLIN, {.u32 = 3}};
  CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, quiet[0], &e), 0);
  static const Part parts[] = {{"timeouts", Timeouts},
                               {"wakes", Wakes},
                               {"servers", Servers},
                               {"nesting", Nesting},
                               {"masks", Masks}};
  return RUN_PARTS(parts);
}
