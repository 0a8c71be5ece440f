// SPDX-License-Identifier: Apache-2.0
// Alternate signal stacks: each thread has its own, handlers run on it, a stack overflow of one
// thread is caught there and left by siglongjmp, and faults show the true context.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "pthreads.h"

enum { kAlt = 64 << 10, kThreads = 12 };
static __thread char* alt;
static __thread sigjmp_buf back;
static __thread volatile char* fault;
static atomic_int handled, gate;

static int On(const char* stack, const void* p) {
  return (const char*)p >= stack && (const char*)p < stack + kAlt;
}
static void OnUser(int sig) {
  (void)sig;
  char here;
  CHECK_MSG(alt == NULL || On(alt, &here), "the handler runs on another stack");
  stack_t now;
  CHECK(sigaltstack(NULL, &now) == 0);
  if (alt) CHECK(now.ss_sp == alt && now.ss_flags == SS_ONSTACK);
  handled++;
}
static void OnFault(int sig, siginfo_t* info, void* context) {
  char here;
  const ucontext_t* u = context;
  CHECK(sig == SIGSEGV || sig == SIGBUS);
  CHECK(alt && On(alt, &here));
  if (fault) CHECK(info->si_addr == (void*)fault);
  CHECK(!On(alt, (void*)u->uc_mcontext.gregs[REG_RSP]));
  siglongjmp(back, 1);
}

__attribute__((noinline)) static int Overflow(volatile int depth) {
  volatile char frame[2048];
  frame[0] = (char)depth;
  return depth < 0 ? 0 : Overflow(depth + 1) + frame[0];
}

static void Install(void) {
  alt = mmap(NULL, kAlt, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(alt != MAP_FAILED);
  stack_t s = {.ss_sp = alt, .ss_size = kAlt}, old;
  CHECK_EQ(sigaltstack(&s, &old), 0);
  CHECK_EQ(old.ss_flags, SS_DISABLE);  // none is inherited
}
static void* Uses(void* arg) {
  Install();
  sigset_t now;
  for (volatile int i = 0; i < 10; i++) {
    sched_yield();
    stack_t s;
    CHECK(sigaltstack(NULL, &s) == 0 && s.ss_sp == alt && s.ss_size == kAlt && s.ss_flags == 0);
    CHECK_EQ(raise(SIGUSR1), 0);
    // A fault at a known place.
    fault = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sigsetjmp(back, 1) == 0) {
      fault[0] = 1;
      CHECK(0);
    }
    munmap((void*)fault, 4096);
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGSEGV) == 0);
    if (i % 3 == 0) SleepMs(1);
  }
  fault = NULL;
  for (volatile int i = 0; i < 3; i++)
    if (sigsetjmp(back, 1) == 0) {
      Overflow(0);
      CHECK(0);
    }
  stack_t off = {.ss_flags = SS_DISABLE}, small = {.ss_sp = alt, .ss_size = 100};
  CHECK(sigaltstack(&small, NULL) == -1 && errno == ENOMEM);
  CHECK_EQ(sigaltstack(&off, NULL), 0);
  char* mine = alt;
  alt = NULL;
  CHECK_EQ(raise(SIGUSR1), 0);
  munmap(mine, kAlt);
  return arg;
}
static void Threads(const char* name) {
  (void)name;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 256 << 10);
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) CHECK_EQ(pthread_create(&t[i], &attr, Uses, NULL), 0);
  for (int i = 0; i < kThreads; i++) Join(t[i]);
  CHECK_EQ(handled, 11 * kThreads);
}

// Signals from outside while the threads compute and wait: on each one's own stack.
static void* Works(void* arg) {
  Install();
  while (!gate) {
    if (arg)
      SleepMs(1);
    else
      for (volatile int i = 0; i < 10000; i++) {
      }
  }
  return NULL;
}
static void Outside(const char* name) {
  (void)name;
  handled = 0;
  pthread_t t[4];
  for (intptr_t i = 0; i < 4; i++) t[i] = Start(Works, (void*)(i % 2));
  Moment();
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(pthread_kill(t[i % 4], SIGUSR1), 0);
    EVENTUALLY(handled == i + 1);
  }
  gate = 1;
  for (int i = 0; i < 4; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  struct sigaction act = {.sa_handler = OnUser, .sa_flags = SA_ONSTACK};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  act.sa_flags = SA_ONSTACK | SA_SIGINFO;
  act.sa_sigaction = OnFault;
  CHECK(sigaction(SIGSEGV, &act, NULL) == 0 && sigaction(SIGBUS, &act, NULL) == 0);
  static const Part parts[] = {{"threads", Threads}, {"outside", Outside}};
  return RUN_PARTS(parts);
}
