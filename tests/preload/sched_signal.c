// SPDX-License-Identifier: Apache-2.0
// Signals and threads: to one thread, to the process, masks and who inherits them, pending ones,
// values, handlers that run on the right thread, waits for signals.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

static atomic_int entered, gate, calls;
static _Atomic(pthread_t) handler_thread;
static __thread int mine;
static atomic_int seen_mine, seen_value, seen_code;

static void OnSignal(int sig, siginfo_t* info, void* context) {
  (void)sig, (void)context;
  int error = errno;
  handler_thread = pthread_self();
  seen_mine = mine;
  seen_value = info->si_value.sival_int;
  seen_code = info->si_code;
  calls++;
  errno = error;
}
static void Handle(int sig, int flags) {
  struct sigaction act = {.sa_sigaction = OnSignal, .sa_flags = SA_SIGINFO | flags};
  CHECK_EQ(sigaction(sig, &act, NULL), 0);
}
static void Block(int how, int a, int b) {
  sigset_t set = SetOf(a, b);
  CHECK_EQ(pthread_sigmask(how, &set, NULL), 0);
}
static int Blocked(int sig) {
  sigset_t now;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
  return sigismember(&now, sig);
}

// pthread_kill reaches its thread, whatever that does at the time.
static void* Busy(void* arg) {
  const int how = (int)(intptr_t)arg;
  mine = how + 100;
  entered++;
  while (!gate) {
    if (how == 0) SleepMs(30);
    if (how == 1) sched_yield();
    if (how == 2) {
      for (volatile int i = 0; i < 100000; i++) {
      }
    }
  }
  return NULL;
}
static void Directed(const char* name) {
  (void)name;
  Handle(SIGUSR1, 0);
  for (intptr_t how = 0; how < 3; how++) {
    entered = gate = 0;
    pthread_t t = Start(Busy, (void*)how);
    EVENTUALLY(entered == 1);
    for (int i = 0; i < 20; i++) {
      calls = 0;
      CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
      EVENTUALLY(calls == 1);
      CHECK(pthread_equal(handler_thread, t) && seen_mine == how + 100);
      CHECK_EQ(seen_code, SI_TKILL);
    }
    CHECK_EQ(pthread_kill(t, 0), 0);
    CHECK_EQ(pthread_kill(t, 99), EINVAL);
    gate = 1;
    calls = 0;
    CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
    Join(t);
  }
}

static void* Sends(void* arg) {
  mine = 55;
  CHECK_EQ(raise(SIGUSR1), 0);
  // raise returns after the handler.
  CHECK(calls == 1 && seen_mine == 55 && pthread_equal(handler_thread, pthread_self()));
  union sigval v = {.sival_int = 1234};
  CHECK_EQ(pthread_sigqueue(pthread_self(), SIGUSR1, v), 0);
  CHECK(calls == 2 && seen_value == 1234 && seen_code == SI_QUEUE);
  CHECK_EQ(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1), 0);
  CHECK(calls == 3 && seen_mine == 55);
  CHECK_EQ(tgkill(getpid(), gettid(), SIGUSR1), 0);
  CHECK(calls == 4 && seen_mine == 55);
  Block(SIG_BLOCK, SIGUSR1, 0);
  CHECK(raise(SIGUSR1) == 0 && raise(SIGUSR1) == 0 && calls == 4);
  sigset_t pending;
  CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
  Block(SIG_UNBLOCK, SIGUSR1, 0);
  CHECK_EQ(calls, 5);  // not queued twice
  // Real-time signals are queued, in order.
  Block(SIG_BLOCK, SIGRTMIN + 3, 0);
  for (v.sival_int = 0; v.sival_int < 5; v.sival_int++)
    CHECK_EQ(pthread_sigqueue(pthread_self(), SIGRTMIN + 3, v), 0);
  sigset_t set = SetOf(SIGRTMIN + 3, 0);
  siginfo_t info;
  for (int i = 0; i < 5; i++)
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN + 3 && info.si_value.sival_int == i);
  struct timespec none = {0, 0};
  CHECK(sigtimedwait(&set, &info, &none) == -1 && errno == EAGAIN);
  return arg;
}
static void ToMyself(const char* name) {
  (void)name;
  calls = 0;
  Handle(SIGUSR1, 0);
  Join(Start(Sends, NULL));
}

// Masks belong to the thread and are inherited by those it starts; pending signals are not.
static void* ChecksMask(void* arg) {
  sigset_t pending;
  CHECK_EQ(Blocked(SIGUSR2), arg != NULL);
  CHECK_EQ(Blocked(SIGHUP), 0);
  CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR2) == 0);
  for (int i = 0; i < 20; i++) {
    Block(i % 2 ? SIG_UNBLOCK : SIG_BLOCK, SIGUSR1, SIGHUP);
    if (i % 5 == 0)
      SleepMs(1);
    else
      sched_yield();
    CHECK_EQ(Blocked(SIGUSR1), i % 2 == 0);
    CHECK_EQ(Blocked(SIGUSR2), arg != NULL);
  }
  return NULL;
}
static void* Inherits(void* arg) {
  if (arg) Block(SIG_BLOCK, SIGUSR2, 0);
  if (arg) raise(SIGUSR2);
  pthread_t t[5];
  for (int i = 0; i < 5; i++) t[i] = Start(ChecksMask, arg);
  for (int i = 0; i < 5; i++) Join(t[i]);
  // A mask given by the attribute comes first.
  pthread_attr_t attr;
  sigset_t set = SetOf(SIGUSR2, 0), got;
  if (arg) sigemptyset(&set);
  pthread_attr_init(&attr);
  CHECK_EQ(pthread_attr_getsigmask_np(&attr, &got), PTHREAD_ATTR_NO_SIGMASK_NP);
  CHECK_EQ(pthread_attr_setsigmask_np(&attr, &set), 0);
  CHECK_EQ(pthread_create(&t[0], &attr, ChecksMask, arg ? NULL : &mine), 0);
  Join(t[0]);
  sigset_t pending;
  if (arg) CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR2) == 1);
  return NULL;
}
static void Masks(const char* name) {
  (void)name;
  pthread_t a = Start(Inherits, &mine), b = Start(Inherits, NULL);
  Join(a), Join(b);
  CHECK_EQ(Blocked(SIGUSR2), 0);
}

// A signal to the process goes to a thread that has it unblocked, even if that one waits; if all
// block it, it stays until somebody does not.
static void* Eligible(void* arg) {
  Block(SIG_UNBLOCK, SIGUSR1, 0);
  mine = 77;
  entered++;
  while (!gate) {
    if (arg)
      SleepMs(30);
    else
      sched_yield();
  }
  return NULL;
}
static void* Others(void* arg) {
  entered++;
  while (!gate) {
    if (arg)
      sched_yield();
    else
      SleepMs(1);
  }
  return NULL;
}
static void Process(const char* name) {
  (void)name;
  Handle(SIGUSR1, 0);
  Block(SIG_BLOCK, SIGUSR1, 0);
  for (int sleeping = 0; sleeping < 2; sleeping++) {
    entered = gate = 0;
    pthread_t others[6], t;
    for (intptr_t i = 0; i < 6; i++) others[i] = Start(Others, (void*)(i % 2));
    t = Start(Eligible, sleeping ? &mine : NULL);
    EVENTUALLY(entered == 7);
    for (int i = 0; i < 20; i++) {
      calls = 0;
      CHECK_EQ(kill(getpid(), SIGUSR1), 0);
      EVENTUALLY(calls == 1);
      CHECK(pthread_equal(handler_thread, t) && seen_mine == 77 && seen_code == SI_USER);
    }
    gate = 1;
    kill(getpid(), SIGUSR1);
    for (int i = 0; i < 6; i++) Join(others[i]);
    Join(t);
  }
  calls = 0;
  sigset_t pending, set = SetOf(SIGUSR1, 0);
  siginfo_t info;
  struct timespec none = {0, 0};
  while (sigtimedwait(&set, &info, &none) > 0) {
  }
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  Moment();
  CHECK(calls == 0 && sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
  Block(SIG_UNBLOCK, SIGUSR1, 0);
  CHECK_EQ(calls, 1);
}

// Threads that wait for signals: each signal to the process is taken once.
static void* Takes(void* arg) {
  sigset_t set = SetOf(SIGRTMIN + 1, SIGTERM);
  for (;;) {
    siginfo_t info;
    int sig = 0;
    if (arg)
      CHECK_EQ(sigwait(&set, &sig), 0);
    else
      sig = sigwaitinfo(&set, &info);
    // Another waiter was quicker: the kernel reports that so.
    if (sig == -1 && errno == EINTR) continue;
    if (sig == SIGTERM) return NULL;
    CHECK_EQ(sig, SIGRTMIN + 1);
    atomic_fetch_add(&calls, 1);
  }
}
static void Waiting(const char* name) {
  (void)name;
  Block(SIG_BLOCK, SIGRTMIN + 1, SIGTERM);
  calls = 0;
  pthread_t t[4];
  for (intptr_t i = 0; i < 4; i++) t[i] = Start(Takes, (void*)(i % 2));
  for (int i = 0; i < 200; i++) {
    if (i % 4 == 0)
      CHECK_EQ(pthread_kill(t[i % 3], SIGRTMIN + 1), 0);
    else
      CHECK_EQ(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}), 0);
  }
  EVENTUALLY(calls == 200);
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_kill(t[i], SIGTERM), 0);
  for (int i = 0; i < 4; i++) Join(t[i]);
  CHECK_EQ(calls, 200);
  Block(SIG_UNBLOCK, SIGRTMIN + 1, SIGTERM);
}

// Signals come to threads whose wait is just over, while all processors are busy: nothing of them
// is left for those who do not block the signal.
static void* TakesMany(void* arg) {
  const int signal = SIGRTMIN + 1;
  sigset_t set = SetOf(signal, 0);
  struct timespec moment = {0, 20000};
  int taken = 0;
  while (taken < 200) {
    taken += (taken % 2 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &moment)) == signal;
    sched_yield();
  }
  CHECK(sigtimedwait(&set, NULL, &moment) == -1 && errno == EAGAIN);
  return arg;
}
static void* Opens(void* arg) {
  Block(SIG_UNBLOCK, SIGRTMIN + 1, 0);
  while (!gate) {
    for (volatile int i = 0; i < 2000; i++) {
    }
    sched_yield();
  }
  return arg;
}
static void LeftBehind(const char* name) {
  (void)name;
  gate = 0;
  pthread_t open[4], t[6];
  for (int i = 0; i < 4; i++) open[i] = Start(Opens, NULL);
  Block(SIG_BLOCK, SIGRTMIN + 1, 0);
  for (int i = 0; i < 6; i++) t[i] = Start(TakesMany, NULL);
  for (int i = 0; i < 1200; i++) {
    CHECK_EQ(pthread_kill(t[i % 6], SIGRTMIN + 1), 0);
    if (i % 3 == 0) sched_yield();
  }
  for (int i = 0; i < 6; i++) Join(t[i]);
  Moment();
  gate = 1;
  for (int i = 0; i < 4; i++) Join(open[i]);
  Block(SIG_UNBLOCK, SIGRTMIN + 1, 0);
}

// sigsuspend and pause return after a handler; the mask is as before.
static void* Suspends(void* arg) {
  sigset_t open;
  Block(SIG_BLOCK, SIGUSR1, 0);
  pthread_sigmask(SIG_BLOCK, NULL, &open);
  sigdelset(&open, SIGUSR1);
  for (int i = 0; i < 50; i++) {
    entered++;
    CHECK(sigsuspend(&open) == -1 && errno == EINTR);
    CHECK(Blocked(SIGUSR1) == 1 && calls == i + 1);
  }
  return arg;
}
static void Suspending(const char* name) {
  (void)name;
  entered = calls = 0;
  Handle(SIGUSR1, 0);
  pthread_t t = Start(Suspends, NULL);
  for (int i = 0; i < 50; i++) {
    EVENTUALLY(entered == i + 1);
    CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
    EVENTUALLY(calls == i + 1);
  }
  Join(t);
}

// Handlers installed without a siginfo; signals from another process, and to one thread.
static void OnPlain(int sig) {
  (void)sig;
  calls++;
}
static void* Idles(void* arg) {
  entered++;
  while (!gate) SleepMs(arg ? 5 : 1000);
  return NULL;
}
static void Installers(const char* name) {
  (void)name;
  static sighandler_t (*const install[])(int, sighandler_t) = {signal, sysv_signal, sigset};
  Handle(SIGUSR1, 0);
  entered = gate = 0;
  pthread_t t[4];
  for (intptr_t i = 0; i < 4; i++) t[i] = Start(Idles, (void*)(i % 2));
  EVENTUALLY(entered == 4);
  for (int k = 0; k < 3; k++) {
    for (int i = 0; i < 20; i++) {
      calls = 0;
      CHECK(install[k](SIGUSR2, OnPlain) != SIG_ERR);
      pid_t parent = getpid(), child = -1;
      if (i % 2) {
        CHECK_EQ(pthread_kill(t[i % 4], SIGUSR2), 0);
      } else {
        child = fork();
        CHECK(child >= 0);
        if (child == 0) _exit(kill(parent, SIGUSR2) != 0);
      }
      EVENTUALLY(calls != 0);
      if (child > 0) CHECK_EQ(waitpid(child, NULL, 0), child);
      SleepMs(2);
      CHECK_EQ(calls, 1);
    }
    struct sigaction got;
    CHECK_EQ(sigaction(SIGUSR2, NULL, &got), 0);
    CHECK(!(got.sa_flags & SA_SIGINFO));
  }
  gate = 1;
  for (int i = 0; i < 4; i++) {
    pthread_kill(t[i], SIGUSR1);
    Join(t[i]);
  }
}

// Who blocks SIGPIPE keeps it; it is none of those that do not.
static void* BreaksPipes(void* arg) {
  Block(SIG_BLOCK, SIGPIPE, 0);
  for (int i = 0; i < 100; i++) {
    int ends[2];
    sigset_t set = SetOf(SIGPIPE, 0), now;
    struct timespec none = {0, 0};
    CHECK_EQ(i % 2 ? pipe(ends) : socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    close(ends[0]);
    ssize_t n = i % 4 == 2   ? send(ends[1], "x", 1, 0)
                : i % 4 == 3 ? syscall(SYS_write, ends[1], "x", 1)
                             : write(ends[1], "x", 1);
    CHECK(n == -1 && errno == EPIPE);
    close(ends[1]);
    if (i % 3 == 0) sched_yield();
    if (i % 3 == 1) SleepMs(1);
    CHECK(sigpending(&now) == 0 && sigismember(&now, SIGPIPE) == 1);
    if (arg) CHECK_EQ(sigtimedwait(&set, NULL, &none), SIGPIPE);
  }
  return NULL;
}
static void* Yields(void* arg) {
  while (!gate) arg ? (void)sched_yield() : SleepMs(1);
  return NULL;
}
static void BrokenPipes(const char* name) {
  (void)name;
  pthread_t t[6];
  gate = 0;
  for (intptr_t i = 0; i < 6; i++) t[i] = Start(i < 3 ? Yields : BreaksPipes, (void*)(i % 2));
  for (int i = 3; i < 6; i++) Join(t[i]);
  gate = 1;
  for (int i = 0; i < 3; i++) Join(t[i]);
}

// All processors compute in threads that block the signal; the one that takes it waits.
static atomic_int done;
static sem_t never;
static void* Computes(void* arg) {
  Block(SIG_BLOCK, SIGUSR1, SIGTERM);
  entered++;
  for (time_t end = time(NULL) + 20; !done && time(NULL) < end;)
    for (volatile int i = 0; i < 100000; i++) {
    }
  return arg;
}
static void* WaitsOpen(void* arg) {
  entered++;
  sem_wait(&never);
  return arg;
}
static void SetsDone(int sig) {
  (void)sig;
  done = 1;
}
// In a child: whether the signal comes while others compute.
static int AllBusy(int sig) {
  entered = 0;
  pthread_t t[4];
  for (int i = 0; i < 4; i++) t[i] = Start(Computes, NULL);
  Start(WaitsOpen, NULL);
  Block(SIG_BLOCK, SIGUSR1, SIGTERM);
  while (entered < 5) SleepMs(10);
  pid_t parent = getpid(), child = fork();
  if (child == 0) {
    SleepMs(300);
    _exit(kill(parent, sig));
  }
  CHECK_EQ(waitpid(child, NULL, 0), child);
  time_t begin = time(NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  return time(NULL) - begin < 15 && done ? 0 : 1;
}
static void BusyProcessors(const char* name) {
  (void)name;
  signal(SIGUSR1, SetsDone);
  for (int i = 0; i < 2; i++) {
    pid_t child = fork();
    if (child == 0) _exit(AllBusy(i == 0 ? SIGUSR1 : SIGTERM));
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, i == 0 ? 0 : SIGTERM);
  }
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"busy_processors", BusyProcessors},
                               {"directed", Directed},
                               {"to_myself", ToMyself},
                               {"masks", Masks},
                               {"process", Process},
                               {"waiting", Waiting},
                               {"left_behind", LeftBehind},
                               {"suspending", Suspending},
                               {"installers", Installers},
                               {"broken_pipes", BrokenPipes}};
  return RUN_PARTS(parts);
}
