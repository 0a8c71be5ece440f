// SPDX-License-Identifier: Apache-2.0
// What programs of the Open POSIX Test Suite take for granted: threads begin in the order in which
// they were made; a stack ends where it was asked to end, and is reported so; an id whose thread is
// gone is an error; signals that wait for the first thread wait for no other.
// run:
// run: name=one env=GOMAXPROCS=1
// native: no
// timeout: 40
#include <limits.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "pthreads.h"

// Natively the kernel may choose otherwise; so may a second P, between two threads.
static atomic_int place[20], places;
static void* TakesPlace(void* arg) {
  place[(intptr_t)arg] = places++;
  return arg;
}
static void Order(const char* name) {
  (void)name;
  const char* procs = getenv("GOMAXPROCS");
  for (int round = 0; round < 100; round++) {
    pthread_t t[20];
    places = 0;
    for (intptr_t i = 0; i < 20; i++) t[i] = Start(TakesPlace, (void*)i);
    for (int i = 0; i < 20; i++) Join(t[i]);
    for (int i = 0; i < 20 && procs != NULL; i++) CHECK_EQ(place[i], i);
  }
}

// Thread 1 is made first and installs the handlers that the others need.
static pthread_t first;
static atomic_int handled;
static void OnSignal(int sig) {
  (void)sig;
  handled = 1;
}
static void* Installs(void* arg) {
  signal(SIGUSR2, OnSignal);
  while (!handled) sched_yield();
  return arg;
}
static void* Kills(void* arg) {
  pthread_kill(first, SIGUSR2);
  return arg;
}
static void Handlers(const char* name) {
  (void)name;
  for (int round = 0; round < 50; round++) {
    signal(SIGUSR2, SIG_IGN);
    handled = 0;
    first = Start(Installs, NULL);
    pthread_t second = Start(Kills, NULL);
    Join(second);
    // Where the second one came first, which a kernel may do, its signal was ignored.
    if (!handled) EVENTUALLY((pthread_kill(first, SIGUSR2), handled));
    Join(first);
  }
}

static size_t wanted;
static char* top;
__attribute__((noinline)) static int Recurse(volatile int depth) {
  volatile char frame[512];
  frame[0] = 1;
  if (top - (char*)frame >= (ptrdiff_t)wanted) _exit(9);
  return depth < 0 ? 0 : Recurse(depth + 1) + frame[0];
}
static void* Overflows(void* arg) {
  char here;
  top = &here;
  Recurse(0);
  return arg;
}
static void* Reported(void* arg) {
  char here;
  pthread_attr_t attr;
  void* low;
  size_t size;
  CHECK_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
  CHECK_EQ(pthread_attr_getstack(&attr, &low, &size), 0);
  CHECK(&here > (char*)low && &here < (char*)low + size);
  CHECK_EQ(size, wanted);
  pthread_attr_destroy(&attr);
  return arg;
}
static void Sizes(const char* name) {
  (void)name;
  const size_t sizes[] = {PTHREAD_STACK_MIN, 20 << 10, 32 << 10, 60 << 10, 100 << 10, 3 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    pthread_attr_t attr;
    pthread_t t;
    wanted = sizes[i];
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstacksize(&attr, wanted), 0);
    CHECK_EQ(pthread_create(&t, &attr, Reported, NULL), 0);
    Join(t);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      dup2(open("/dev/null", O_WRONLY), 2);
      CHECK_EQ(pthread_create(&t, &attr, Overflows, NULL), 0);
      Join(t);
      _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "%zu bytes: status 0x%x", wanted,
              status);
    pthread_attr_destroy(&attr);
  }
}

// A guard that is larger than the stack takes nothing from the neighbours.
static sem_t sem;
static void* Touches(void* arg) {
  volatile char frame[40 << 10];
  for (size_t i = 0; i < sizeof frame; i += 1024) frame[i] = 1;
  while (sem_wait(&sem) != 0) {
  }
  for (size_t i = 0; i < sizeof frame; i += 1024) CHECK_EQ(frame[i], 1);
  return arg;
}
static void WideGuards(const char* name) {
  (void)name;
  sem_init(&sem, 0, 0);
  pthread_t t[30];
  for (int i = 0; i < 30; i++) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstacksize(&attr, 64 << 10), 0);
    CHECK_EQ(pthread_attr_setguardsize(&attr, i % 3 == 1 ? 1 << 20 : 4096), 0);
    CHECK_EQ(pthread_create(&t[i], &attr, Touches, NULL), 0);
    pthread_attr_destroy(&attr);
  }
  Moment();
  for (int i = 0; i < 30; i++) sem_post(&sem);
  for (int i = 0; i < 30; i++) Join(t[i]);
}

static void* Posts(void* arg) {
  sem_post(&sem);
  return arg;
}
static void StaleIds(const char* name) {
  (void)name;
  pthread_t t = Start(Posts, NULL);
  Join(t);
  CHECK_EQ(pthread_join(t, NULL), ESRCH);
  CHECK_EQ(pthread_detach(t), ESRCH);
  sem_init(&sem, 0, 0);
  t = Start(Posts, NULL);
  CHECK_EQ(pthread_detach(t), 0);
  while (sem_wait(&sem) != 0) {
  }
  Moment();
  int error = pthread_join(t, NULL);
  CHECK_MSG(error == ESRCH || error == EINVAL, "joined a detached thread: %d", error);
}

// Signals that wait for the first thread when the second one is made.
static void* SeesNone(void* arg) {
  sigset_t set;
  CHECK_EQ(sigpending(&set), 0);
  CHECK(!sigismember(&set, SIGUSR1) && !sigismember(&set, SIGRTMIN));
  CHECK(sigismember(&set, SIGUSR2));  // that of the process
  return arg;
}
static atomic_int values;
static void OnValue(int sig, siginfo_t* info, void* context) {
  (void)sig, (void)context;
  CHECK_EQ(info->si_value.sival_int, values);
  values++;
}
static void PendsInChild(void) {
  sigset_t block = SetOf(SIGUSR1, SIGUSR2), set;
  sigaddset(&block, SIGRTMIN);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &block, NULL), 0);
  struct sigaction action = {.sa_sigaction = OnValue, .sa_flags = SA_SIGINFO};
  sigaction(SIGRTMIN, &action, NULL);
  struct sigaction plain = {.sa_handler = OnSignal};
  sigaction(SIGUSR1, &plain, NULL);
  sigaction(SIGUSR2, &plain, NULL);
  handled = 0;
  raise(SIGUSR1);
  kill(getpid(), SIGUSR2);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(pthread_sigqueue(pthread_self(), SIGRTMIN, (union sigval){.sival_int = i}), 0);
  }
  for (int i = 0; i < 3; i++) Join(Start(SeesNone, NULL));
  CHECK_EQ(sigpending(&set), 0);
  CHECK(sigismember(&set, SIGUSR1) && sigismember(&set, SIGUSR2) && sigismember(&set, SIGRTMIN));
  CHECK(handled == 0 && values == 0);
  set = SetOf(SIGUSR1, SIGRTMIN);
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
  CHECK_EQ(handled, 1);
  CHECK_EQ(values, 5);
  _exit(0);
}
static void Pending(const char* name) {
  (void)name;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) PendsInChild();
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"pending", Pending},        {"order", Order},
                               {"handlers", Handlers},      {"sizes", Sizes},
                               {"wide_guards", WideGuards}, {"stale_ids", StaleIds}};
  return RUN_PARTS(parts);
}
