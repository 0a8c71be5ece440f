// SPDX-License-Identifier: Apache-2.0
// gdb makes the threads of a stopped process go on one after another, and gives up when the process
// ends before the last one: the main thread, which here may run at once, must leave it the time.
// native: no
// run:
// run: name=one env=GOMAXPROCS=1
// timeout: 60
#include <dirent.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kThreads = 3, kMost = 64 };

static void* Sleeps(void* arg) { return SleepMs(1000000), arg; }

// A process with threads that sleep; it ends at the first word it gets.
static void Traced(int in, int out) {
  pthread_t t;
  char c = 0;
  for (int i = 0; i < kThreads; i++) CHECK_EQ(pthread_create(&t, NULL, Sleeps, NULL), 0);
  SleepMs(10);
  CHECK_EQ(write(out, &c, 1), 1);
  CHECK_EQ(read(in, &c, 1), 1);
  exit(0);
}

static int Seize(pid_t child, pid_t* tasks) {
  char path[40];
  int n = 0;
  snprintf(path, sizeof path, "/proc/%d/task", child);
  DIR* dir = opendir(path);
  CHECK(dir);
  for (struct dirent* e; (e = readdir(dir));) {
    if (e->d_name[0] == '.') continue;
    CHECK(n < kMost);
    tasks[n] = atoi(e->d_name);
    if (ptrace(PTRACE_SEIZE, tasks[n], 0, 0) != 0) continue;  // it has ended
    CHECK_EQ(ptrace(PTRACE_INTERRUPT, tasks[n], 0, 0), 0);
    int status;
    CHECK(waitpid(tasks[n], &status, __WALL) == tasks[n] && WIFSTOPPED(status));
    n++;
  }
  closedir(dir);
  return n;
}

int main(void) {
  for (int round = 0; round < 5; round++) {
    int in[2], out[2], status;
    char c;
    pid_t tasks[kMost];
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) Traced(in[0], out[1]);
    CHECK_EQ(read(out[0], &c, 1), 1);
    int n = Seize(child, tasks);
    CHECK_MSG(n > 1, "%d kernel threads", n);
    CHECK_EQ(write(in[1], &c, 1), 1);
    for (int i = 0; i < n; i++) {
      CHECK_MSG(ptrace(PTRACE_CONT, tasks[i], 0, 0) == 0, "thread %d of %d: %s", i, n,
                strerror(errno));
      SleepMs(1);
    }
    // Its other threads are to be reaped, too.
    for (pid_t who = 0; who != child || WIFSTOPPED(status);) {
      who = waitpid(-1, &status, __WALL);
      CHECK(who > 0);
      if (WIFSTOPPED(status)) CHECK_EQ(ptrace(PTRACE_CONT, who, 0, WSTOPSIG(status)), 0);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(close(in[0]) == 0 && close(in[1]) == 0 && close(out[0]) == 0 && close(out[1]) == 0);
  }
  puts("all right");
  return 0;
}
