// SPDX-License-Identifier: Apache-2.0
// The note about threads that are asleep for good: given when nothing can wake them, and never when
// anything could. Each case is a child whose stderr is read.
// native: no
// run: name=on notes
// run: name=one env=UNDERGO=gc=off env=GOMAXPROCS=1 notes
// run: name=silent silent
// run: name=abort env=UNDERGO=deadlock=abort aborts
// run: name=off env=UNDERGO=deadlock=off nothing
// timeout: 60
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "pthreads.h"

static char text[1 << 18];
static atomic_int up;

enum { kLookMs = 2600 };  // the library looks after a second of idleness

typedef struct Case {
  const char* name;
  void (*body)(void);
} Case;
typedef struct Child {
  pid_t pid;
  int err;
} Child;

static Child Begin(void (*body)(void)) {
  int err[2];
  CHECK_EQ(pipe(err), 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(err[1], 2);
    close(err[0]), close(err[1]);
    body();
    _exit(0);
  }
  close(err[1]);
  return (Child){pid, err[0]};
}
// Its status, ended by SIGKILL when it lives on.
static int Finish(Child c) {
  kill(c.pid, SIGKILL);
  size_t n = 0;
  ssize_t got;
  while ((got = read(c.err, text + n, sizeof text - 1 - n)) > 0) n += (size_t)got;
  text[n] = 0;
  close(c.err);
  int status;
  CHECK(waitpid(c.pid, &status, 0) == c.pid);
  return status;
}
// A moment after it wrote something.
static Child AfterOutput(Child c) {
  struct pollfd p = {c.err, POLLIN, 0};
  CHECK(poll(&p, 1, kForeverMs) >= 0);
  SleepMs(300);
  return c;
}
static int Count(const char* what) {
  int n = 0;
  for (const char* at = text; (at = strstr(at, what)) != NULL; at++) n++;
  return n;
}

// --- asleep for good ---

static pthread_mutex_t a = PTHREAD_MUTEX_INITIALIZER, b = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t sem;

__attribute__((noinline)) static void LocksInHere(pthread_mutex_t* first, pthread_mutex_t* second) {
  pthread_mutex_lock(first);
  up++;
  while (up < 2) sched_yield();
  pthread_mutex_lock(second);
  up++;
}
static void* Locks(void* arg) {
  arg ? LocksInHere(&a, &b) : LocksInHere(&b, &a);
  return NULL;
}
static void TwoMutexes(void) {
  pthread_t t = Start(Locks, &a), u = Start(Locks, NULL);
  Join(t), Join(u);
}
static void* WaitsForCond(void* arg) {
  pthread_mutex_lock(&a);
  for (;;) pthread_cond_wait(&cond, &a);
  return arg;
}
static void Everything(void) {
  pthread_barrier_init(&barrier, NULL, 2);
  sem_init(&sem, 0, 0);
  Start(WaitsForCond, NULL), Start((ThreadBody)(void*)sem_wait, &sem);
  Start((ThreadBody)(void*)pthread_barrier_wait, &barrier);
  for (;;) sem_wait(&sem);
}
static void* Nothing(void* arg) { return arg; }
// The scheduler runs on for a while with one thread.
static void OneThread(void) {
  Join(Start(Nothing, NULL));
  sem_init(&sem, 0, 0);
  for (;;) sem_wait(&sem);
}
static void* EndsLater(void* arg) {
  SleepMs(100);
  return WaitsForCond(arg);
}
static void MainHasEnded(void) {
  Start(EndsLater, NULL);
  pthread_exit(NULL);
}
// A handler of faults is no reason to be silent.
static void Faulted(int sig) { _exit(sig); }
static void HandlesFaults(void) {
  signal(SIGSEGV, Faulted);
  Everything();
}

static const Case kNotes[] = {{"two mutexes", TwoMutexes},
                              {"everything", Everything},
                              {"one thread", OneThread},
                              {"main has ended", MainHasEnded},
                              {"handles faults", HandlesFaults}};
enum { kNoteCount = sizeof kNotes / sizeof *kNotes };
static void Notes(const char* name) {
  (void)name;
  Child c[kNoteCount];
  for (int i = 0; i < kNoteCount; i++) c[i] = Begin(kNotes[i].body);
  for (int i = 0; i < kNoteCount; i++) {
    Finish(AfterOutput(c[i]));
    CHECK_MSG(Count("undergo: all threads are asleep - deadlock!\n") == 1, "%s: %s", kNotes[i].name,
              text);
    CHECK_MSG(Count("\ngoroutine ") >= 1, "%s: %s", kNotes[i].name, text);
    if (i == 0) CHECK_EQ(Count("LocksInHere(...)"), 2);
  }
}
static void Aborts(const char* name) {
  (void)name;
  int status = Finish(AfterOutput(Begin(Everything)));
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x: %s", status, text);
  CHECK_EQ(Count("all threads are asleep"), 1);
}

// --- asleep, but not for good ---

static void* Waits(void* arg) {
  for (;;) sem_wait(&sem);
  return arg;
}
static void WithWaiters(void) {
  sem_init(&sem, 0, 0);
  Start(Waits, NULL), Start(WaitsForCond, NULL);
}
static void OnSignal(int sig) { (void)sig, sem_post(&sem); }
static void Handler(void) {
  signal(SIGTERM, OnSignal);
  WithWaiters(), Waits(NULL);
}
static void Paused(void) { WithWaiters(), pause(); }
static void Suspended(void) {
  sigset_t none;
  sigemptyset(&none);
  WithWaiters(), sigsuspend(&none);
}
static void Sigwait(void) {
  sigset_t set = SetOf(SIGUSR1, SIGUSR2);
  int sig;
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  WithWaiters(), sigwait(&set, &sig);
}
static void Timed(void) {
  WithWaiters();
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_sec += 1000;
  sem_timedwait(&sem, &t);
}
static void Alarm(void) { WithWaiters(), alarm(1000), Waits(NULL); }
static void ThreadTimer(union sigval v) { (void)v, sem_post(&sem); }
static void Timer(void) {
  struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = ThreadTimer};
  struct itimerspec in = {.it_value = {1000, 0}};
  timer_t t;
  CHECK(timer_create(CLOCK_MONOTONIC, &e, &t) == 0 && timer_settime(t, 0, &in, NULL) == 0);
  WithWaiters(), Waits(NULL);
}
// Whose expiry only ends the process.
static void SignalTimer(void) {
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct itimerspec in = {.it_value = {1000, 0}};
  timer_t t;
  CHECK(timer_create(CLOCK_MONOTONIC, &e, &t) == 0 && timer_settime(t, 0, &in, NULL) == 0);
  WithWaiters(), Waits(NULL);
}
static void Descriptor(void) {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  struct pollfd p = {ends[0], POLLIN, 0};
  WithWaiters(), poll(&p, 1, -1);
}
static void ChildProcess(void) {
  WithWaiters();
  pid_t pid = fork();
  if (pid == 0) SleepMs(3 * kLookMs), _exit(0);
  int status;
  waitpid(pid, &status, 0);
}
static void SharedSem(void) {
  sem_t* s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK_EQ(sem_init(s, 1, 0), 0);
  WithWaiters(), sem_wait(s);
}
static void SharedFutex(void) {
  int* word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  WithWaiters(), syscall(SYS_futex, word, 0 /* WAIT */, 0, NULL);
}
static int RawThread(void* arg) {
  (void)arg;
  struct timespec t = {1000, 0};
  for (;;) syscall(SYS_nanosleep, &t, NULL);
  return 0;
}
static void RawClone(void) {
  static char stack[64 << 10] __attribute__((aligned(16)));
  CHECK(clone(RawThread, stack + sizeof stack,
              CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
              NULL) > 0);
  WithWaiters(), Waits(NULL);
}
static void Sleeping(void) { WithWaiters(), sleep(1000); }
static void* Posts(void* arg) {
  for (;;) SleepMs(1500), sem_post(&sem);
  return arg;
}
static void NowAndThen(void) { WithWaiters(), Start(Posts, NULL), Waits(NULL); }

static const Case kSilent[] = {
    {"handler", Handler},
    {"pause", Paused},
    {"sigsuspend", Suspended},
    {"sigwait", Sigwait},
    {"timed wait", Timed},
    {"alarm", Alarm},
    {"thread timer", Timer},
    {"signal timer", SignalTimer},
    {"descriptor", Descriptor},
    {"child", ChildProcess},
    {"shared semaphore", SharedSem},
    {"shared futex", SharedFutex},
    {"raw thread", RawClone},
    {"sleep", Sleeping},
    {"now and then", NowAndThen},
};
enum { kSilentCount = sizeof kSilent / sizeof *kSilent };
static void Silent(const char* name) {
  (void)name;
  Child c[kSilentCount];
  for (int i = 0; i < kSilentCount; i++) c[i] = Begin(kSilent[i].body);
  SleepMs(2 * kLookMs);
  for (int i = 0; i < kSilentCount; i++) {
    int status = Finish(c[i]);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x %s",
              kSilent[i].name, status, text);
    CHECK_MSG(text[0] == 0, "%s: %s", kSilent[i].name, text);
  }
}
static void SaysNothing(const char* name) {
  (void)name;
  Child c = Begin(Everything);
  SleepMs(kLookMs);
  Finish(c);
  CHECK_MSG(text[0] == 0, "%s", text);
}

int main(int argc, char** argv) {
  static const Part kParts[] = {
      {"notes", Notes}, {"aborts", Aborts}, {"silent", Silent}, {"nothing", SaysNothing}};
  return RUN_PARTS(kParts);
}
