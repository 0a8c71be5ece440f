// SPDX-License-Identifier: Apache-2.0
// What a program sees of signal dispositions is its own: old actions, flags, masks, siginfo,
// one-shot handlers, signal() and its relatives, exec, and a vfork child that changes its
// dispositions only.
// run:
// run: name=fresh fresh
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "check.h"

static volatile sig_atomic_t plain_runs, info_runs, last_signal, other_blocked, pid_seen;
static void* volatile value_seen;
static volatile uintptr_t interrupted_at;

static void Plain(int sig) {
  plain_runs++;
  last_signal = sig;
  free(malloc(100));
}
static void Info(int sig, siginfo_t* info, void* context) {
  info_runs++;
  last_signal = sig;
  pid_seen = (sig_atomic_t)info->si_pid;
  value_seen = info->si_value.sival_ptr;
  interrupted_at = (uintptr_t)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
  sigset_t now;
  pthread_sigmask(SIG_BLOCK, NULL, &now);
  other_blocked = sigismember(&now, SIGUSR2);
}

static void OldActions(void) {
  struct sigaction set, got;
  memset(&set, 0, sizeof set);
  set.sa_handler = Plain;
  set.sa_flags = SA_RESTART | SA_NODEFER;
  sigaddset(&set.sa_mask, SIGUSR2);
  sigaddset(&set.sa_mask, SIGRTMIN + 3);
  CHECK_EQ(sigaction(SIGUSR1, NULL, &got), 0);
  CHECK(got.sa_handler == SIG_DFL);
  CHECK_EQ(sigaction(SIGUSR1, &set, &got), 0);
  CHECK(got.sa_handler == SIG_DFL);
  memset(&got, 0xff, sizeof got);
  CHECK_EQ(sigaction(SIGUSR1, NULL, &got), 0);
  CHECK(got.sa_handler == Plain);
  CHECK_EQ(got.sa_flags & (SA_RESTART | SA_NODEFER | SA_SIGINFO | SA_RESETHAND | SA_ONSTACK),
           SA_RESTART | SA_NODEFER);
  for (int sig = 1; sig < 65; sig++) {
    if (sig == 32 || sig == 33 || sig == SIGKILL || sig == SIGSTOP) continue;
    CHECK_EQ(sigismember(&got.sa_mask, sig), sig == SIGUSR2 || sig == SIGRTMIN + 3);
  }
  set.sa_sigaction = Info;
  set.sa_flags = SA_SIGINFO;
  CHECK_EQ(sigaction(SIGUSR1, &set, &got), 0);
  CHECK(got.sa_handler == Plain);
  CHECK_EQ(sigaction(SIGUSR1, NULL, &got), 0);
  CHECK(got.sa_sigaction == Info && (got.sa_flags & SA_SIGINFO));
  // The same structure given twice, as wrappers do.
  CHECK_EQ(sigaction(SIGUSR1, &got, OpaquePtr(&got)), 0);
  CHECK(got.sa_sigaction == Info);

  union sigval value = {.sival_ptr = &value};
  CHECK_EQ(sigqueue(getpid(), SIGUSR1, value), 0);
  CHECK(info_runs == 1 && last_signal == SIGUSR1 && pid_seen == getpid());
  CHECK(value_seen == &value && other_blocked == 1 && interrupted_at != 0);

  errno = 0;
  CHECK(sigaction(SIGKILL, &set, NULL) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(sigaction(0, NULL, NULL) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(sigaction(65, &set, NULL) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(sigaction(-1, &set, &got) == -1 && errno == EINVAL);
}

static void Relatives(void) {
  CHECK(signal(SIGUSR2, Plain) == SIG_DFL);
  CHECK(signal(SIGUSR2, Plain) == Plain);
  int before = plain_runs;
  raise(SIGUSR2), raise(SIGUSR2);
  CHECK_EQ(plain_runs, before + 2);
  CHECK(signal(SIGUSR2, SIG_IGN) == Plain);
  raise(SIGUSR2);
  CHECK_EQ(plain_runs, before + 2);
  CHECK(signal(SIGUSR2, SIG_DFL) == SIG_IGN);
  errno = 0;
  CHECK(signal(SIGKILL, Plain) == SIG_ERR && errno == EINVAL);
  CHECK(sigset(SIGUSR2, Plain) == SIG_DFL);
  CHECK_EQ(siginterrupt(SIGUSR2, 1), 0);
  struct sigaction got;
  CHECK_EQ(sigaction(SIGUSR2, NULL, &got), 0);
  CHECK(got.sa_handler == Plain && !(got.sa_flags & SA_RESTART));

  // One shot: the second one would end the process, so it is only asked for.
  struct sigaction set;
  memset(&set, 0, sizeof set);
  set.sa_handler = Plain;
  set.sa_flags = (int)SA_RESETHAND;
  CHECK_EQ(sigaction(SIGALRM, &set, NULL), 0);
  before = plain_runs;
  raise(SIGALRM);
  CHECK_EQ(plain_runs, before + 1);
  CHECK_EQ(sigaction(SIGALRM, NULL, &got), 0);
  CHECK_MSG(got.sa_handler == SIG_DFL, "a one-shot handler is still there");
}

static int Reset(void* arg) {
  (void)arg;
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_IGN);
  struct sigaction set = {.sa_handler = SIG_DFL};
  sigaction(SIGHUP, &set, NULL);
  syscall(SYS_exit, 0);
  return 0;
}

// A child in its parent's memory has dispositions of its own; programs reset them before exec.
static void VforkChild(void) {
  struct sigaction set;
  memset(&set, 0, sizeof set);
  set.sa_sigaction = Info;
  set.sa_flags = SA_SIGINFO;
  CHECK_EQ(sigaction(SIGUSR1, &set, NULL), 0);
  signal(SIGUSR2, Plain);
  signal(SIGHUP, Plain);
  for (int way = 0; way < 3; way++) {
    pid_t pid;
    char* stack = NULL;
    if (way == 0) {
      pid = vfork();
      if (pid == 0) Reset(NULL);
    } else if (way == 1) {
      stack = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      pid = clone(Reset, stack + (1 << 18), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    } else {
      pid = fork();
      if (pid == 0) Reset(NULL);
    }
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (stack) munmap(stack, 1 << 18);
    struct sigaction got;
    CHECK_EQ(sigaction(SIGUSR1, NULL, &got), 0);
    CHECK_MSG(got.sa_sigaction == Info, "way %d: the child took its parent's handler away", way);
    int info = info_runs, plain = plain_runs;
    raise(SIGUSR1), raise(SIGUSR2), raise(SIGHUP);
    CHECK_MSG(info_runs == info + 1, "way %d: SIGUSR1 was not handled", way);
    CHECK_MSG(plain_runs == plain + 2, "way %d: SIGUSR2 or SIGHUP was not handled", way);
    CHECK(signal(SIGUSR2, Plain) == Plain);
  }
}

// After exec handlers are gone and ignored signals stay ignored.
static int Fresh(void) {
  struct sigaction got;
  CHECK_EQ(sigaction(SIGUSR1, NULL, &got), 0);
  CHECK(got.sa_handler == SIG_DFL);
  CHECK_EQ(sigaction(SIGPIPE, NULL, &got), 0);
  CHECK(got.sa_handler == SIG_IGN);
  CHECK(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
  puts("signals are the program's own");
  return 0;
}

static void* Hammer(void* arg) {
  for (int i = 0; i < 20000; i++) {
    struct sigaction got;
    CHECK_EQ(sigaction(SIGWINCH, NULL, &got), 0);
    CHECK(got.sa_handler == Plain || got.sa_sigaction == Info);
    // Handler and flag belong together at any moment.
    CHECK((got.sa_sigaction == Info) == !!(got.sa_flags & SA_SIGINFO));
  }
  return arg;
}
static void Together(void) {
  struct sigaction a, b;
  memset(&a, 0, sizeof a);
  b = a;
  a.sa_handler = Plain;
  b.sa_sigaction = Info;
  b.sa_flags = SA_SIGINFO;
  CHECK_EQ(sigaction(SIGWINCH, &a, NULL), 0);
  pthread_t t;
  CHECK_EQ(pthread_create(&t, NULL, Hammer, NULL), 0);
  for (int i = 0; i < 20000; i++) {
    CHECK_EQ(sigaction(SIGWINCH, i % 2 ? &a : &b, NULL), 0);
    if (i % 16 == 0) raise(SIGWINCH);
  }
  pthread_join(t, NULL);
}

int main(int argc, char** argv) {
  if (argc > 2) return Fresh();
  OldActions();
  Relatives();
  VforkChild();
  Together();
  signal(SIGPIPE, SIG_IGN);
  if (argc > 1) {
    execl("/proc/self/exe", argv[0], "fresh", "again", (char*)NULL);
    return 1;
  }
  puts("signals are the program's own");
  return 0;
}
