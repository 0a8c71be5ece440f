// SPDX-License-Identifier: Apache-2.0
// State that the kernel keeps for each of its threads or for the process: identity changes reach
// all threads, and what one thread changes for itself alone stays with it and with nobody else.
// needs: root
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kThreads = 12 };
static atomic_int phase, checked, stop;

static void InChild(void (*body)(void)) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(60);
    body();
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK_MSG(status == 0, "child: status 0x%x", status);
}

// setuid and its family act on all threads, waiting ones too.
static void* SeesUid(void* arg) {
  for (int p = 1; p <= 3; p++) {
    while (phase < p) {
      if (arg)
        sched_yield();
      else
        SleepMs(1);
    }
    if (p == 1) CHECK(getegid() == 1000 && syscall(SYS_getegid) == 1000);
    if (p == 2) CHECK(geteuid() == 1000 && syscall(SYS_geteuid) == 1000 && getuid() == 0);
    if (p == 3) CHECK(geteuid() == 0);
    checked++;
  }
  return NULL;
}
static void ChangeIds(void) {
  pthread_t t[kThreads];
  for (intptr_t i = 0; i < kThreads; i++) t[i] = Start(SeesUid, (void*)(i % 2));
  Moment();
  CHECK_EQ(setegid(1000), 0);
  phase = 1;
  EVENTUALLY(checked == kThreads);
  CHECK_EQ(seteuid(1000), 0);
  CHECK_EQ(geteuid(), 1000);
  phase = 2;
  EVENTUALLY(checked == 2 * kThreads);
  CHECK_EQ(seteuid(0), 0);
  phase = 3;
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}
static void Ids(const char* name) {
  (void)name;
  InChild(ChangeIds);
}

static void* Wanders(void* arg) {
  while (!stop) {
    if (arg)
      sched_yield();
    else
      SleepMs(1);
    CHECK(syscall(SYS_geteuid) == 0 && (int)setfsuid((uid_t)-1) == 0);
  }
  return NULL;
}
// What only the calling thread gets: it has it wherever it waits, the others never.
static void* OwnState(void* arg) {
  switch ((intptr_t)arg) {
    case 0: setfsuid(1234); break;
    case 1: CHECK_EQ(syscall(SYS_setresuid, 1235, 1235, -1), 0); break;
    case 2: CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0); break;
    case 3: CHECK_EQ(prctl(PR_SET_TIMERSLACK, 123456, 0, 0, 0), 0); break;
    case 4:
      if (unshare(CLONE_FS) == 0) {
        CHECK_EQ(chdir("/tmp"), 0);
        umask(0123);
      } else
        arg = (void*)9;
      break;
    case 5: {
      struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
                                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
      struct sock_fprog program = {4, code};
      CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
      CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
      break;
    }
  }
  char text[64];
  for (int i = 0; i < 20; i++) {
    if (i % 2)
      sched_yield();
    else
      SleepMs(1);
    switch ((intptr_t)arg) {
      case 0: CHECK_EQ(setfsuid((uid_t)-1), 1234); break;
      case 1: CHECK_EQ(syscall(SYS_geteuid), 1235); break;
      case 2: CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1); break;
      case 3: CHECK_EQ(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), 123456); break;
      case 4: {
        mode_t mask = umask(0123);
        CHECK(getcwd(text, sizeof text) && !strcmp(text, "/tmp") && mask == 0123);
        break;
      }
      case 5: CHECK(syscall(SYS_getppid) == -1 && errno == 77); break;
    }
  }
  return NULL;
}
static void* Ordinary(void* arg) {
  char text[64];
  for (int i = 0; i < 20; i++) {
    SleepMs(1);
    CHECK_EQ(setfsuid((uid_t)-1), 0);
    CHECK(syscall(SYS_geteuid) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
    CHECK(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0) != 123456 && syscall(SYS_getppid) > 0);
    CHECK(getcwd(text, sizeof text) && !strcmp(text, "/"));
  }
  return arg;
}
static void OwnStates(void) {
  CHECK_EQ(chdir("/"), 0);
  pthread_t w[4], t[6], o[6];
  for (intptr_t i = 0; i < 4; i++) w[i] = Start(Wanders, (void*)(i % 2));
  for (intptr_t i = 0; i < 6; i++) t[i] = Start(OwnState, (void*)i);
  for (int i = 0; i < 6; i++) o[i] = Start(Ordinary, NULL);
  for (int i = 0; i < 6; i++) Join(t[i]), Join(o[i]);
  // Those that start afterwards are clean as well.
  for (int i = 0; i < 6; i++) o[i] = Start(Ordinary, NULL);
  for (int i = 0; i < 6; i++) Join(o[i]);
  stop = 1;
  for (int i = 0; i < 4; i++) Join(w[i]);
}
static void Own(const char* name) {
  (void)name;
  InChild(OwnStates);
}

// A tracer must stay the same thread of the kernel through all its calls.
static void* Traces(void* arg) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(1);
    raise(SIGSTOP);
    for (int i = 0; i < 5; i++) raise(SIGUSR1);
    _exit(7);
  }
  int status, stops = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
  for (;;) {
    SleepMs(1);
    sched_yield();
    long r = ptrace(PTRACE_CONT, child, 0, 0);
    CHECK_MSG(r == 0, "PTRACE_CONT: %s", strerror(errno));
    CHECK_EQ(waitpid(child, &status, __WALL), child);
    if (WIFEXITED(status)) break;
    stops++;
  }
  CHECK(stops == 5 && WEXITSTATUS(status) == 7);
  return arg;
}
// The death signal comes when the thread that forked ends, not when another one does.
static void* ForksWithDeathSignal(void* arg) {
  int* ends = arg;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (write(ends[1], "x", 1) != 1) _exit(1);
    WaitToBeKilled();
  }
  char c;
  CHECK_EQ(read(ends[0], &c, 1), 1);
  for (int i = 0; i < 5; i++) SleepMs(1);
  siginfo_t info = {0};
  CHECK_EQ(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT), 0);
  CHECK_EQ(info.si_pid, 0);
  return (void*)(intptr_t)child;
}
static void* Short(void* arg) {
  sched_yield();
  return arg;
}
static void Family(const char* name) {
  (void)name;
  pthread_t t[4];
  for (int i = 0; i < 4; i++) t[i] = Start(Traces, NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  pthread_t p = Start(ForksWithDeathSignal, ends);
  for (int i = 0; i < 200; i++) Join(Start(Short, NULL));
  pid_t child = (pid_t)(intptr_t)Join(p);
  kill(child, SIGKILL);
  int status;
  CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"ids", Ids}, {"own", Own}, {"family", Family}};
  return RUN_PARTS(parts);
}
