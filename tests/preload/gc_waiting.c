// SPDX-License-Identifier: Apache-2.0
// Threads that wait for the collector, inside of malloc or of undergo_gc: they count as stopped, so
// no stop wakes them up. Handlers of the program run in the middle of the wait as ever, may
// allocate there, and may leave it for good.
// run: env=GOGC=20
// run: name=sched_off env=GOGC=20 env=UNDERGO=sched=off
// run: name=poison env=GOGC=20 env=UNDERGO=gc=poison
// run: name=checked env=GOGC=20 env=GODEBUG=gccheckmark=1
// timeout: 60
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "gc.h"

enum { kCollections = 60, kNodes = 3000, kThreads = 3 };
static const double kSeconds = 1.5;

static long Sleeps(void) {
  struct rusage use;
  CHECK_EQ(getrusage(RUSAGE_THREAD, &use), 0);
  return use.ru_nvcsw;
}

// Two stops for each collection: a signal for each would be two sleeps in its handler, and two more
// when the wait goes on.
static void Quiet(const char* name) {
  NEED_GC();
  for (int i = 0; i < 5; i++) CHECK_EQ(undergo_gc(), 0);
  const long before = Sleeps();
  for (int i = 0; i < kCollections; i++) CHECK_EQ(undergo_gc(), 0);
  const long sleeps = Sleeps() - before;
  CHECK_MSG(sleeps <= 2 * kCollections, "%s: %ld sleeps in %d collections", name, sleeps,
            kCollections);
}

typedef struct Node {
  struct Node* next;
  uint64_t number, mixed;
  uint64_t padding[5];
} Node;
static uint64_t Mixed(uint64_t number) { return number * 0x9e3779b97f4a7c15u ^ 0x5bf0363; }

static NOINLINE Node* Chain(uint64_t seed) {
  Node* first = NULL;
  for (uint64_t i = 0; i < kNodes; i++) {
    Node* n = malloc(sizeof *n);
    CHECK(n);
    *n = (Node){.next = first, .number = seed + i, .mixed = Mixed(seed + i)};
    first = n;
  }
  return first;
}
static NOINLINE void Look(const Node* n) {
  int count = 0;
  for (; n; n = n->next, count++) CHECK(n->mixed == Mixed(n->number));
  CHECK_EQ(count, kNodes);
}

static atomic_int stop;
static void* Drop(void* seed) {
  for (uint64_t i = (uintptr_t)seed << 40; !stop; i += kNodes) Look(Chain(i));
  return NULL;
}

static volatile sig_atomic_t signals, jumps, may_jump;
static sigjmp_buf back;
static Node* from_handler;
static void OnAlarm(int sig) {
  (void)sig;
  signals++;
  if (may_jump) siglongjmp(back, 1);
  Node* n = malloc(sizeof *n);
  if (n) *n = (Node){.next = NULL, .number = 7, .mixed = Mixed(7)};
  from_handler = n;
}

static void WithAlarms(const char* name, void (*work)(double end)) {
  pthread_t thread[kThreads];
  sigset_t alarm_only, old;
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  struct sigaction action = {.sa_handler = OnAlarm};
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  pthread_sigmask(SIG_BLOCK, &alarm_only, &old);  // for the threads
  stop = 0;
  for (size_t i = 0; i < kThreads; i++)
    CHECK_EQ(pthread_create(&thread[i], NULL, Drop, (void*)(i + 2)), 0);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  signals = 0;
  struct itimerval often = {{0, 700}, {0, 700}}, never = {{0, 0}, {0, 0}};
  CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
  const uint32_t cycles = GcStats()->num_gc;
  work(Seconds() + kSeconds);
  CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
  stop = 1;
  for (int i = 0; i < kThreads; i++) pthread_join(thread[i], NULL);
  CHECK_MSG(signals > 50, "%s: only %d signals", name, (int)signals);
  CHECK_MSG(GcStats()->num_gc > cycles + 5, "%s: hardly any collection", name);
}

static void Allocate(double end) {
  for (uint64_t i = 1; Seconds() < end; i += kNodes) Look(Chain(i));
}
// Natively a handler that interrupts malloc may not call it, nor leave it.
static void Handlers(const char* name) {
  NEED_GC();
  WithAlarms(name, Allocate);
  CHECK(from_handler && from_handler->mixed == Mixed(7));
}

static void AllocateAndLeave(double end) {
  static Node* volatile kept;
  static volatile uint64_t seed = 1;
  if (sigsetjmp(back, 1) != 0) jumps++;
  may_jump = 1;
  while (Seconds() < end) {
    Node* n = Chain(seed);
    seed += kNodes;
    if (kept) Look(kept);
    kept = n;
  }
  may_jump = 0;
}
static void Jumps(const char* name) {
  NEED_GC();
  WithAlarms(name, AllocateAndLeave);
  CHECK_MSG(jumps > 50, "%s: only %d jumps", name, (int)jumps);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"quiet", Quiet},
      {"handlers", Handlers},
      {"jumps", Jumps},
  };
  return RUN_PARTS(parts);
}
