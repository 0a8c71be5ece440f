// SPDX-License-Identifier: Apache-2.0
// Signals while collections run: handlers that allocate, keep and drop objects; timers that
// interrupt everything; threads that block all signals, by the library and by the kernel; threads
// that wait for all signals; handlers that leave by siglongjmp. No signal of the collector is seen.
// run: name=alarms native=no alarms
// run: name=poison native=no env=UNDERGO=gc=poison alarms
// run: name=blocked blocked
// run: name=blocked_poison env=UNDERGO=gc=poison blocked
// run: name=waits waits
// run: name=jumps jumps
// run: name=raw_mask raw_mask
// timeout: 60
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "gc.h"

static atomic_int stop;
static atomic_ulong handled;

static __thread Live* kept_by_handler;
static void Handle(int sig) {
  (void)sig;
  int saved = errno;
  atomic_fetch_add(&handled, 1);
  if (kept_by_handler) CheckLive(kept_by_handler, 3, 2);
  kept_by_handler = MakeLive(3, 2);  // the last ones are dropped
  free(malloc(70));
  errno = saved;
}
static void* Work(void* arg) {
  Live* live = MakeLive(500, 4);
  while (!stop) {
    Leak(300);
    free(malloc(1000));
    CheckLive(live, 500, 4);
  }
  return arg;
}
static void Alarms(void) {
  struct sigaction action = {.sa_handler = Handle, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  CHECK_EQ(sigaction(SIGPROF, &action, NULL), 0);
  struct itimerval every = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
  CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
  CHECK_EQ(setitimer(ITIMER_PROF, &every, NULL), 0);
  pthread_t t[3];
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, Work, NULL), 0);
  StartCollector();
  SleepMs(1500);
  stop = 1;
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  StopCollector(5);
  setitimer(ITIMER_REAL, &never, NULL);
  setitimer(ITIMER_PROF, &never, NULL);
  CHECK_MSG(handled > 300, "only %lu signals", (unsigned long)handled);
}

// All signals that the C library lets one block are blocked; collections still happen.
static atomic_int spin, ready;
static void* Blocks(void* number) {
  sigset_t all;
  sigfillset(&all);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
  Live* volatile live = MakeLive(100, 5);
  atomic_fetch_add(&ready, 1);
  while (!stop)
    if ((intptr_t)number % 2)
      SleepMs(1);
    else
      spin++;
  CheckLive(live, 100, 5);
  sigset_t now;
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &now), 0);
  for (int sig = 1; sig < NSIG; sig++)
    CHECK_MSG(sigismember(&now, sig) == sigismember(&all, sig) || sig == SIGKILL || sig == SIGSTOP,
              "signal %d is no longer blocked", sig);
  return NULL;
}
static void Blocked(void) {
  pthread_t t[4];
  for (intptr_t i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, Blocks, (void*)i), 0);
  while (ready < 4) SleepMs(1);
  CollectHard("threads that block all signals");
  stop = 1;
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}

// A thread that takes every signal that there is; it must get the program's own only.
static pthread_t waiter;
static atomic_int taken;
static void* Takes(void* arg) {
  sigset_t all;
  sigfillset(&all);
  Live* volatile live = MakeLive(100, 5);
  ready = 1;
  for (int got = 0; got < 20; got++) {
    siginfo_t info;
    int sig = sigwaitinfo(&all, &info);
    CHECK_MSG(sig == SIGUSR1, "sigwaitinfo: %d, %s", sig, strerror(errno));
    CheckLive(live, 100, 5);
    taken = got + 1;
  }
  return arg;
}
static void Waits(void) {
  sigset_t all;
  sigfillset(&all);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
  CHECK_EQ(pthread_create(&waiter, NULL, Takes, NULL), 0);
  while (!ready) SleepMs(1);
  for (int i = 0; i < 20; i++) {
    CollectOnce();
    SleepMs(3);
    CHECK_EQ(pthread_kill(waiter, SIGUSR1), 0);
    while (taken == i) SleepMs(1);  // two that are pending at a time are one
  }
  CollectHard("a thread that waits for all signals");
  pthread_join(waiter, NULL);
}

static sigjmp_buf out;
static volatile Live* volatile dropped;
static void Jump(int sig) {
  (void)sig;
  atomic_fetch_add(&handled, 1);
  dropped = MakeLive(2, 2);
  siglongjmp(out, 1);
}
static void Jumps(void) {
  Live* volatile live = MakeLive(500, 4);
  StartCollector();
  struct sigaction action = {.sa_handler = Jump};
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  const double end = Seconds() + 1;
  for (volatile int i = 0; Seconds() < end; i++) {
    if (sigsetjmp(out, 1) == 0) {
      raise(SIGUSR1);
      CHECK(!"the handler came back");
    }
    Leak(20);
    if (i % 100 == 0) CheckLive(live, 500, 4);
  }
  CHECK(handled > 1000);
  StopCollector(5);
}

// Blocked by the bare system call, the collector's own signals too: it cannot stop this thread, so
// it may not reclaim anything, but it must not hang nor lose what the thread holds.
static void* RawMask(void* arg) {
  uint64_t all = ~(uint64_t)0;
  long rc;
  register long r10 __asm__("r10") = 8;
  __asm__ volatile("syscall"
                   : "=a"(rc)
                   : "0"(SYS_rt_sigprocmask), "D"(SIG_SETMASK), "S"(&all), "d"(NULL), "r"(r10)
                   : "rcx", "r11", "memory");
  CHECK_EQ(rc, 0);
  Live* volatile live = MakeLive(100, 5);
  ready = 1;
  while (!stop) spin++;
  CheckLive(live, 100, 5);
  return arg;
}
static void RawMasked(void) {
  pthread_t t;
  Live* live = MakeLive(500, 4);
  CHECK_EQ(pthread_create(&t, NULL, RawMask, NULL), 0);
  while (!ready) SleepMs(1);
  double start = Seconds();
  for (int i = 0; i < 5; i++) {
    Pressure();
    CollectOnce();
    CheckLive(live, 500, 4);
  }
  CHECK_MSG(Seconds() - start < 20, "five attempts took %.1f s", Seconds() - start);
  stop = 1;
  pthread_join(t, NULL);
  CollectHard("after the thread that could not be stopped");
  CheckLive(live, 500, 4);
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  if (!strcmp(argv[1], "alarms"))
    Alarms();
  else if (!strcmp(argv[1], "blocked"))
    Blocked();
  else if (!strcmp(argv[1], "waits"))
    Waits();
  else if (!strcmp(argv[1], "jumps"))
    Jumps();
  else if (!strcmp(argv[1], "raw_mask"))
    RawMasked();
  else
    CHECK(!"an argument that exists");
  puts("all right");
  return 0;
}
