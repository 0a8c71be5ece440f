// SPDX-License-Identifier: Apache-2.0
// Signals that come to a thread that they are not for: those of a timer for another thread, and
// those that it has taken by itself meanwhile. The library's own alternate stacks, one for each
// kernel thread, stay where they are: two kernel threads with the same one would write over each
// other's signal frames.
// run:
// run: name=one env=GOMAXPROCS=1
// run: name=preempted env=UNDERGO=stress=preempt
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pthreads.h"

enum { kThreads = 6, kRounds = 5000, kTicks = 300, kMs = 64 };
static atomic_int stop, handled;
static struct {
  atomic_long tid;
  _Atomic(void*) stack;
} seen[kMs];

// By instructions of their own: the library would answer for the thread.
static long Bare(long number, long a, const void* b, void* c, long d) {
  register long r10 __asm__("r10") = d;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
}

// The kernel thread that runs this has its stack for itself, and always the same. Nothing may move
// it to another one and back between the two calls.
static void Look(void) {
  stack_t now = {0};
  const uint64_t all = ~(uint64_t)0;
  uint64_t mask;
  CHECK_EQ(Bare(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof mask), 0);
  const long tid = Bare(SYS_gettid, 0, NULL, NULL, 0);
  CHECK_EQ(Bare(SYS_sigaltstack, 0, &now, NULL, 0), 0);
  CHECK_EQ(Bare(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask), 0);
  if (!UnderPreload()) return;
  CHECK_MSG((now.ss_flags & SS_DISABLE) == 0, "%ld has no alternate stack", tid);
  for (int i = 0; i < kMs; i++) {
    long empty = 0;
    if (atomic_compare_exchange_strong(&seen[i].tid, &empty, tid)) seen[i].stack = now.ss_sp;
    const int mine = seen[i].tid == tid;
    EVENTUALLY(seen[i].stack != NULL);
    CHECK_MSG((seen[i].stack == now.ss_sp) == mine, "the stack of %ld at %ld", seen[i].tid, tid);
    if (mine) return;
  }
}

static void OnSignal(int sig) {
  (void)sig;
  handled++;
}
static void* Looks(void* arg) {
  while (!stop) {
    for (int i = 0; i < 20; i++) sched_yield();
    Look();
    SleepMs(1);
  }
  return arg;
}
static void* Moves(void* arg) {
  while (!stop) {
    for (volatile int i = 0; i < 20000; i++) {
    }
    sched_yield();
    Look();
  }
  return arg;
}
static void Threads(pthread_t* t) {
  stop = handled = 0;
  for (int i = 0; i < kThreads; i++) t[i] = Start(i % 2 ? Looks : Moves, NULL);
}
static void End(pthread_t* t) {
  stop = 1;
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}
static void Late(const char* name) {
  (void)name;
  pthread_t t[kThreads];
  Threads(t);
  for (int i = 0; i < kRounds; i++) CHECK_EQ(pthread_kill(t[i % kThreads], SIGUSR1), 0);
  EVENTUALLY(handled > 0);  // many become one
  End(t);
}

// While the thread that the timer names waits.
static void Timer(const char* name) {
  (void)name;
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
  event._sigev_un._tid = gettid();
  struct itimerspec every = {{0, 500000}, {0, 500000}};
  pthread_t t[kThreads];
  Threads(t);
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  CHECK_EQ(timer_settime(timer, 0, &every, NULL), 0);
  while (handled < kTicks) SleepMs(2);
  CHECK_EQ(timer_delete(timer), 0);
  End(t);
}

int main(int argc, char** argv) {
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  static const Part parts[] = {{"late", Late}, {"timer", Timer}};
  return RUN_PARTS(parts);
}
