// SPDX-License-Identifier: Apache-2.0
// Other programs from threads: posix_spawn, vfork, system, popen, fork and exec, and waits for
// children in every form. What is started has the right mask and handlers; its output arrives.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 60
#include <spawn.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "pthreads.h"

extern char** environ;
static char* self_path;
static atomic_int stop;

// As a child: says which signals it finds blocked and ignored, as two numbers.
static int Report(void) {
  sigset_t set;
  unsigned long blocked = 0, ignored = 0;
  sigprocmask(SIG_BLOCK, NULL, &set);
  for (int s = 1; s < 64; s++) {
    struct sigaction act;
    if (sigismember(&set, s) == 1) blocked |= 1ul << s;
    if (s != 32 && s != 33 && sigaction(s, NULL, &act) == 0 && act.sa_handler == SIG_IGN)
      ignored |= 1ul << s;
  }
  printf("%lx %lx\n", blocked, ignored);
  return 0;
}

static void* Computes(void* arg) {
  while (!stop)
    for (volatile int i = 0; i < 10000; i++) {
    }
  return arg;
}
static void* Sleeps(void* arg) {
  while (!stop) SleepMs(1);
  return arg;
}

static void WaitFor(pid_t pid, int how, int want) {
  int status = 0;
  siginfo_t info;
  struct rusage use;
  switch (how % 4) {
    case 0: CHECK_EQ(waitpid(pid, &status, 0), pid); break;
    case 1: CHECK_EQ(wait4(pid, &status, 0, &use), pid); break;
    case 2:
      CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
      CHECK(info.si_pid == pid && info.si_code == CLD_EXITED);
      status = info.si_status << 8;
      break;
    case 3:
      while (waitpid(pid, &status, WNOHANG) == 0) SleepMs(1);
  }
  CHECK_MSG(status == want << 8, "child: status 0x%x, wanted %d", status, want);
}

// Starts this program as a child with a pipe for its output; returns what it printed.
static void Started(int how, const char* want) {
  int ends[2];
  char text[100] = "";
  char* argv[] = {self_path, "report", NULL};
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  pid_t pid = -1;
  if (how == 0) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    CHECK_EQ(posix_spawn(&pid, self_path, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  } else {
    pid = how == 1 ? fork() : vfork();
    if (pid == 0) {
      dup2(ends[1], 1);
      execv(self_path, argv);
      _exit(99);
    }
  }
  CHECK(pid > 0);
  close(ends[1]);
  size_t have = 0;
  ssize_t n;
  while ((n = read(ends[0], text + have, sizeof text - 1 - have)) > 0) have += (size_t)n;
  close(ends[0]);
  WaitFor(pid, how, 0);
  CHECK_MSG(!strcmp(text, want), "way %d: %s instead of %s", how, text, want);
}
static void* Masked(void* arg) {
  char want[100];
  const int sig = 40 + (int)(intptr_t)arg;
  sigset_t set = SetOf(sig, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &set, NULL), 0);
  snprintf(want, sizeof want, "%lx %lx\n", 1ul << sig | 1ul << SIGUSR2, 1ul << SIGHUP);
  for (int how = 0; how < 3; how++) Started(how, want);
  return NULL;
}
static void OnSignal(int sig) { (void)sig; }
static void Masks(const char* name) {
  (void)name;
  pthread_t t[6];
  for (intptr_t i = 0; i < 6; i++) t[i] = Start(Masked, (void*)i);
  for (int i = 0; i < 6; i++) Join(t[i]);
}

static void* Runs(void* arg) {
  const intptr_t me = (intptr_t)arg;
  for (int i = 0; i < 5; i++) {
    char command[64], text[64] = "";
    CHECK_EQ(system(me % 2 ? "exit 3" : "exit 0"), me % 2 ? 3 << 8 : 0);
    snprintf(command, sizeof command, "echo out %d", (int)me * 10 + i);
    FILE* f = popen(command, "r");
    CHECK(f && fgets(text, sizeof text, f) && atoi(text + 4) == me * 10 + i);
    CHECK_EQ(pclose(f), 0);
    f = popen("cat >/dev/null; exit 5", "w");
    CHECK(f && fputs("some text\n", f) >= 0);
    CHECK_EQ(pclose(f), 5 << 8);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      usleep(1000 * (unsigned)i);
      _exit((int)me);
    }
    WaitFor(pid, i, (int)me);
    char* argv[] = {"false", NULL};
    CHECK_EQ(posix_spawnp(&pid, "false", NULL, NULL, argv, environ), 0);
    WaitFor(pid, i + 1, 1);
    CHECK_EQ(posix_spawnp(&pid, "/no/such/program", NULL, NULL, argv, environ), ENOENT);
  }
  return NULL;
}
static void Commands(const char* name) {
  (void)name;
  pthread_t b[3], t[5];
  for (int i = 0; i < 3; i++) b[i] = Start(i ? Sleeps : Computes, NULL);
  for (intptr_t i = 0; i < 5; i++) t[i] = Start(Runs, (void*)i);
  for (int i = 0; i < 5; i++) Join(t[i]);
  stop = 1;
  for (int i = 0; i < 3; i++) Join(b[i]);
  CHECK(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
}

// exec from a thread replaces the process: same number, all other threads gone, output of the new
// program only.
static void* Execs(void* arg) {
  char* argv[] = {self_path, "report", NULL};
  sigset_t set = SetOf(45, 0);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &set, NULL), 0);
  dup2(*(int*)arg, 1);
  execv(self_path, argv);
  _exit(98);
}
static void Exec(const char* name) {
  (void)name;
  int ends[2];
  char text[100] = "", want[100];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  stop = 0;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(60);
    for (int i = 0; i < 20; i++) Start(i % 2 ? Sleeps : Computes, NULL);
    Moment();
    Start(Execs, &ends[1]);
    for (;;) pause();
  }
  close(ends[1]);
  CHECK(read(ends[0], text, sizeof text - 1) > 0);
  WaitFor(pid, 0, 0);
  snprintf(want, sizeof want, "%lx %lx\n", 1ul << 45, 1ul << SIGHUP);
  CHECK_MSG(!strcmp(text, want), "%s instead of %s", text, want);
  close(ends[0]);
}

// SIGCHLD and a thread that waits for any child.
static atomic_int chld, reaped;
static void OnChild(int sig) {
  (void)sig;
  chld++;
}
static void* Reaps(void* arg) {
  while (reaped < 20) {
    int status;
    pid_t pid = wait(&status);
    if (pid > 0)
      reaped++;
    else
      SleepMs(1);
  }
  return arg;
}
static void AnyChild(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = OnChild, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGCHLD, &act, NULL), 0);
  pthread_t t = Start(Reaps, NULL);
  for (int i = 0; i < 20; i++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) _exit(0);
  }
  Join(t);
  CHECK(chld > 0);
  signal(SIGCHLD, SIG_DFL);
}

int main(int argc, char** argv) {
  self_path = argv[0];
  if (argc > 1 && !strcmp(argv[1], "report")) return Report();
  signal(SIGHUP, SIG_IGN);
  signal(SIGUSR1, OnSignal);
  static const Part parts[] = {
      {"masks", Masks}, {"commands", Commands}, {"exec", Exec}, {"any_child", AnyChild}};
  return RUN_PARTS(parts);
}
