// SPDX-License-Identifier: Apache-2.0
// malloc, realloc, calloc and free in signal handlers at a high rate, while the interrupted code
// does the same with the same sizes: a slot handed out twice shows by its pattern.
// Not defined by POSIX, done by programs all the same; the C library's malloc does not survive it.
// native: no
// run: name=alarm alarm 1
// run: name=timers timers 1
// run: name=threads threads 1
// run: name=altstack altstack 1
// run: name=alarm_long pace=long alarm 8
// run: name=threads_long pace=long threads 8
// timeout: 30
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "check.h"

enum { kSlots = 96, kThreads = 4 };
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

typedef struct Entry {
  unsigned char* p;
  size_t size;
  uint64_t tag;
} Entry;

// A private population of blocks; one belongs to the handlers and one to the code below them.
typedef struct Heap {
  Entry entry[kSlots];
  Random random;
  uint64_t operations;
} Heap;

static const size_t kSizes[] = {16, 16, 24, 32, 48, 64, 64, 96, 128, 500, 1024, 4000};
static __thread Heap in_handler, in_main;
static __thread volatile int nested;
static atomic_ulong handler_runs;
static double seconds = 1;

static void Step(Heap* h) {
  Random* r = &h->random;
  Entry* e = &h->entry[Below(r, kSlots)];
  size_t size =
      Below(r, 200) ? kSizes[Below(r, sizeof kSizes / sizeof *kSizes)] : 1 + Below(r, 150000);
  h->operations++;
  if (e->p) {
    size_t bad = Verify(e->p, e->size, e->tag);
    CHECK_MSG(bad == e->size, "byte %zu of a block of %zu was overwritten", bad, e->size);
    if (Below(r, 4) == 0) {
      size_t kept = e->size < size ? e->size : size;
      e->p = realloc(e->p, size);
      CHECK(e->p && Verify(e->p, kept, e->tag) == kept);
      e->size = kept;
      return;
    }
    free(e->p);
  }
  if (Below(r, 3) == 0) {
    e->p = NULL;
    return;
  }
  if (Below(r, 4) == 0) {
    e->p = calloc(1, size);
    CHECK(e->p);
    for (size_t i = 0; i < size; i++)
      CHECK_MSG(e->p[i] == 0, "calloc gave a used block of %zu", size);
  } else {
    e->p = malloc(size);
    CHECK(e->p);
  }
  e->size = size;
  e->tag = Next(r);
  Fill(e->p, size, e->tag);
}

static void Handler(int sig) {
  (void)sig;
  int saved = errno;
  if (nested) return;
  nested = 1;
  atomic_fetch_add(&handler_runs, 1);
  for (int i = 0; i < 6; i++) Step(&in_handler);
  nested = 0;
  errno = saved;
}

static void Install(int sig, int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = Handler;
  action.sa_flags = SA_RESTART | flags;
  CHECK_EQ(sigaction(sig, &action, NULL), 0);
}

static void StartTimer(int sig, long ns) {
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = sig;
  event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
  timer_t timer;
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  struct itimerspec spec = {{0, ns}, {0, ns}};
  CHECK_EQ(timer_settime(timer, 0, &spec, NULL), 0);
}

static void* Work(void* arg) {
  in_main.random.state = (uint64_t)(uintptr_t)arg * 7 + 1;
  in_handler.random.state = (uint64_t)(uintptr_t)arg * 13 + 2;
  double end = Seconds() + seconds;
  while (Seconds() < end)
    for (int i = 0; i < 100; i++) Step(&in_main);
  return NULL;
}
static void* TimedWork(void* arg) {
  StartTimer(SIGRTMIN, 100000);
  StartTimer(SIGUSR1, 170000);
  Work(arg);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  return NULL;
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "alarm";
  if (argc > 2) seconds = atof(argv[2]);
  int flags = 0;
  if (!strcmp(mode, "altstack")) {
    static char stack[64 << 10];
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK_EQ(sigaltstack(&s, NULL), 0);
    flags = SA_ONSTACK;
  }
  Install(SIGALRM, flags);
  Install(SIGPROF, flags);
  Install(SIGRTMIN, flags);
  Install(SIGUSR1, flags);
  if (!strcmp(mode, "threads")) {
    pthread_t t[kThreads];
    for (size_t i = 0; i < kThreads; i++)
      CHECK_EQ(pthread_create(&t[i], NULL, TimedWork, (void*)(i + 1)), 0);
    for (int i = 0; i < kThreads; i++) pthread_join(t[i], NULL);
  } else if (!strcmp(mode, "timers")) {
    TimedWork((void*)1);
  } else {
    struct itimerval every = {{0, 100}, {0, 100}};
    CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_PROF, &every, NULL), 0);
    Work((void*)1);
    memset(&every, 0, sizeof every);
    setitimer(ITIMER_REAL, &every, NULL);
    setitimer(ITIMER_PROF, &every, NULL);
  }
  CHECK_MSG(handler_runs > 300, "only %lu signals came", (unsigned long)handler_runs);
  puts("signals right");
  return 0;
}
