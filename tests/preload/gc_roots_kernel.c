// SPDX-License-Identifier: Apache-2.0
// Objects that only the kernel holds for the program: the data of epoll registrations and the
// value of POSIX timers. (What lies in a pipe or in a socket's buffer is in tests of its own.)
// run:
// run: name=poison env=UNDERGO=gc=poison
// timeout: 60
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "gc.h"

static Held held;
static int events[kHeld], set;

static NOINLINE void Register(int from, int to, int operation) {
  for (int i = from; i < to; i++) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    event.data.ptr = MakeHeld(&held, i);
    CHECK_EQ(epoll_ctl(set, operation, events[i], &event), 0);
  }
}
static void* Wait(void) {
  struct epoll_event event;
  CHECK_EQ(epoll_wait(set, &event, 1, 5000), 1);
  return event.data.ptr;
}
static void CheckEvents(const char* name) {
  for (int i = 0; i < kHeld; i++) {
    CHECK_EQ(eventfd_write(events[i], 1), 0);
    CHECK(Wait() == Reveal(held.hidden[i]));
  }
  CheckHeld(&held, name);
}
static void Open(void) {
  CHECK((set = epoll_create1(EPOLL_CLOEXEC)) >= 0);
  for (int i = 0; i < kHeld; i++) CHECK((events[i] = eventfd(0, EFD_CLOEXEC)) >= 0);
}
static void Close(void) {
  for (int i = 0; i < kHeld; i++) close(events[i]);
  close(set);
}

static void Epoll(const char* name) {
  Open();
  Register(0, kHeld, EPOLL_CTL_ADD);
  CollectHard(name);
  CheckEvents(name);
  Close();
}

// Registered with other data first; another number for the set; the first number closed.
static void EpollModified(const char* name) {
  Open();
  for (int i = 0; i < kHeld; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 5};
    CHECK_EQ(epoll_ctl(set, EPOLL_CTL_ADD, events[i], &event), 0);
  }
  Register(0, kHeld / 2, EPOLL_CTL_MOD);
  int copy = fcntl(set, F_DUPFD_CLOEXEC, 100);
  CHECK(copy >= 100);
  close(set);
  set = copy;
  Register(kHeld / 2, kHeld, EPOLL_CTL_MOD);
  CollectHard(name);
  CheckEvents(name);
  Close();
}

// By the bare system call, as some runtimes do.
static NOINLINE void RegisterRaw(void) {
  for (int i = 0; i < kHeld; i++) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    event.data.ptr = MakeHeld(&held, i);
    long rc;
    register long r10 __asm__("r10") = (long)&event;
    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "0"(SYS_epoll_ctl), "D"(set), "S"(EPOLL_CTL_ADD), "d"(events[i]), "r"(r10)
                     : "rcx", "r11", "memory");
    CHECK_EQ(rc, 0);
  }
}
static void EpollRaw(const char* name) {
  Open();
  RegisterRaw();
  CollectHard(name);
  CheckEvents(name);
  Close();
}

static timer_t timers[kHeld];
static volatile sig_atomic_t fired;
static void* volatile value;
static void OnTimer(int sig, siginfo_t* info, void* context) {
  (void)sig;
  (void)context;
  value = info->si_value.sival_ptr;
  fired = 1;
}
static NOINLINE void CreateTimers(void) {
  for (int i = 0; i < kHeld; i++) {
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN + 3;
    event.sigev_value.sival_ptr = MakeHeld(&held, i);
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timers[i]), 0);
  }
}
static void Timers(const char* name) {
  struct sigaction action = {.sa_sigaction = OnTimer, .sa_flags = SA_SIGINFO};
  CHECK_EQ(sigaction(SIGRTMIN + 3, &action, NULL), 0);
  CreateTimers();
  CollectHard(name);
  for (int i = 0; i < kHeld; i++) {
    fired = 0;
    struct itimerspec soon = {{0, 0}, {0, 100000}};
    CHECK_EQ(timer_settime(timers[i], 0, &soon, NULL), 0);
    for (int ms = 0; !fired; ms++) {
      CHECK(ms < 5000);
      SleepMs(1);
    }
    CHECK(value == Reveal(held.hidden[i]));
    CHECK_EQ(timer_delete(timers[i]), 0);
  }
  value = NULL;
  CheckHeld(&held, name);
}

static const Part parts[] = {{"epoll", Epoll},
                             {"epoll-modified", EpollModified},
                             {"epoll-raw", EpollRaw},
                             {"timers", Timers}};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
