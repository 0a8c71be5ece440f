// SPDX-License-Identifier: Apache-2.0
// Stacks that the program switches itself, within threads: makecontext and swapcontext, and
// coroutines by sigaltstack and longjmp as in older libraries. They are interrupted while they run
// there, wait there, and one fiber is resumed by another thread than the one that left it.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "pthreads.h"

enum { kStack = 64 << 10, kThreads = 6 };

typedef struct Fiber {
  ucontext_t context, *back;
  char* stack;
  long steps, sum;
} Fiber;
static __thread Fiber* current;

static void Compute(long n) {
  for (volatile long i = 0; i < n; i++) {
  }
}
static void Body(void) {
  Fiber* f = current;
  for (;;) {
    char here[200];
    CHECK(here > f->stack && here < f->stack + kStack);
    Fill(here, sizeof here, (uint64_t)f->steps);
    if (f->steps % 3 == 0) SleepMs(1);
    if (f->steps % 3 == 1) sched_yield();
    if (f->steps % 3 == 2) Compute(100000);
    CHECK_EQ(Verify(here, sizeof here, (uint64_t)f->steps), sizeof here);
    f->sum += ++f->steps;
    CHECK_EQ(swapcontext(&f->context, f->back), 0);
  }
}
static Fiber* MakeFiber(void) {
  Fiber* f = calloc(1, sizeof *f);
  f->stack = malloc(kStack);  // in the heap, as many libraries have it
  CHECK(f->stack && getcontext(&f->context) == 0);
  f->context.uc_stack.ss_sp = f->stack;
  f->context.uc_stack.ss_size = kStack;
  makecontext(&f->context, Body, 0);
  return f;
}
static void Resume(Fiber* f) {
  ucontext_t here;
  f->back = &here;
  current = f;
  CHECK_EQ(swapcontext(&here, &f->context), 0);
}
static void* Switches(void* arg) {
  Fiber* f[4];
  for (int i = 0; i < 4; i++) f[i] = MakeFiber();
  for (int step = 0; step < 60; step++) Resume(f[step % 4]);
  for (int i = 0; i < 4; i++) {
    CHECK(f[i]->steps == 15 && f[i]->sum == 120);
    free(f[i]->stack), free(f[i]);
  }
  return arg;
}
static void Contexts(const char* name) {
  (void)name;
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) t[i] = Start(Switches, NULL);
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}

// The same fiber goes through all threads.
static Fiber* wandering;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void* Carries(void* arg) {
  for (int i = 0; i < 20; i++) {
    pthread_mutex_lock(&mutex);
    Resume(wandering);
    pthread_mutex_unlock(&mutex);
    sched_yield();
  }
  return arg;
}
static void Wandering(const char* name) {
  (void)name;
  wandering = MakeFiber();
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) t[i] = Start(Carries, NULL);
  for (int i = 0; i < kThreads; i++) Join(t[i]);
  CHECK_EQ(wandering->steps, 20 * kThreads);
}

// A coroutine whose stack was entered by a signal handler; later by longjmp only.
typedef struct Coroutine {
  sigjmp_buf self, caller;
  char* stack;
  volatile long steps;
} Coroutine;
static __thread Coroutine* volatile starting;
static void Trampoline(int sig) {
  (void)sig;
  Coroutine* c = starting;
  if (sigsetjmp(c->self, 0) == 0) return;
  for (;;) {
    char here;
    CHECK(&here > c->stack && &here < c->stack + kStack);
    c->steps++;
    if (c->steps % 2)
      Compute(50000);
    else
      SleepMs(1);
    if (sigsetjmp(c->self, 0) == 0) siglongjmp(c->caller, 1);
  }
}
static void* Coroutines(void* arg) {
  Coroutine c = {
      .stack = mmap(NULL, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};
  CHECK(c.stack != MAP_FAILED);
  stack_t s = {.ss_sp = c.stack, .ss_size = kStack}, off = {.ss_flags = SS_DISABLE};
  CHECK_EQ(sigaltstack(&s, NULL), 0);
  starting = &c;
  CHECK_EQ(raise(SIGUSR2), 0);
  CHECK_EQ(sigaltstack(&off, NULL), 0);
  for (volatile int i = 0; i < 20; i++) {
    if (sigsetjmp(c.caller, 0) == 0) siglongjmp(c.self, 1);
    CHECK_EQ(c.steps, i + 1);
  }
  munmap(c.stack, kStack);
  return arg;
}
static void Jumps(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = Trampoline, .sa_flags = SA_ONSTACK};
  CHECK_EQ(sigaction(SIGUSR2, &act, NULL), 0);
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) t[i] = Start(Coroutines, NULL);
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}

// Contexts with masks of their own, whoever runs where meanwhile.
static atomic_int got;
static void OnSignal(int sig) {
  (void)sig;
  got++;
}
static int Blocked(void) {
  sigset_t now;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
  return sigismember(&now, SIGUSR1);
}
static __thread ucontext_t outer, inner;
static void Masked(void) {
  for (;;) {
    CHECK_EQ(Blocked(), 1);
    int before = got;
    CHECK_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
    SleepMs(1);
    CHECK(Blocked() == 1 && got >= before);
    CHECK_EQ(swapcontext(&inner, &outer), 0);
  }
}
static void* SwapsMasks(void* arg) {
  const int many = arg != NULL;
  sigset_t usr1 = SetOf(SIGUSR1, 0);
  char* stack = malloc(kStack);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
  CHECK_EQ(getcontext(&inner), 0);
  inner.uc_stack.ss_sp = stack, inner.uc_stack.ss_size = kStack;
  makecontext(&inner, Masked, 0);
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
  for (int i = 0; i < 20; i++) {
    const int before = got;
    CHECK_EQ(swapcontext(&outer, &inner), 0);
    if (!many) CHECK_EQ(got, before + 1);
    CHECK_EQ(Blocked(), 0);
    SleepMs(i % 2);
    CHECK_EQ(Blocked(), 0);
  }
  free(stack);
  return NULL;
}
static void MasksOf(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  Join(Start(SwapsMasks, NULL));
  got = 0;
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) t[i] = Start(SwapsMasks, &act);
  for (int i = 0; i < kThreads; i++) Join(t[i]);
  CHECK_EQ(got, 20 * kThreads);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"contexts", Contexts}, {"wandering", Wandering}, {"jumps", Jumps}, {"masks", MasksOf}};
  return RUN_PARTS(parts);
}
