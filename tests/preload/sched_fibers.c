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

int main(int argc, char** argv) {
  static const Part parts[] = {{"contexts", Contexts}, {"wandering", Wandering}, {"jumps", Jumps}};
  return RUN_PARTS(parts);
}
