// SPDX-License-Identifier: Apache-2.0
// fork in the middle of collections, from a process with several threads; both sides go on and
// collect: children of children too. vfork, posix_spawn, system, popen and exec meanwhile.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=stopped env=GODEBUG=gcstoptheworld=1 1
// run: name=long pace=long 10
// timeout: 90
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "gc.h"

extern char** environ;
static atomic_int stop;
static double end;
static Live* live;

static void* Mutate(void* seed) {
  while (!stop) {
    Live* own = MakeLive(300, (uint64_t)(uintptr_t)seed);
    Leak(300);
    CheckLive(own, 300, (uint64_t)(uintptr_t)seed);
  }
  return NULL;
}
static void WaitFor(pid_t pid, const char* what) {
  int status;
  while (waitpid(pid, &status, 0) < 0) CHECK_EQ(errno, EINTR);
  CHECK_MSG(status == 0, "%s: wait status %#x", what, (unsigned)status);
}

// A child may make threads of its own, and fork again in the middle of collections of its own.
static void WorkInChild(void (*fork_again)(void)) {
  CheckLive(live, 3000, 1);
  CollectHard("a child of fork");
  CheckLive(live, 3000, 1);
  StartCollector();
  Leak(2000);
  if (fork_again) fork_again();
  StopCollector(1);
  CheckLive(live, 3000, 1);
}
static void Grandchild(void) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    WorkInChild(NULL);
    _exit(0);
  }
  WaitFor(pid, "a child of a child");
}

static void Programs(void) {
  char* arguments[] = {(char*)"true", NULL};
  pid_t pid;
  CHECK_EQ(posix_spawnp(&pid, "true", NULL, NULL, arguments, environ), 0);
  WaitFor(pid, "posix_spawn");
  pid = vfork();
  CHECK(pid >= 0);
  if (pid == 0) {
    execvp("true", arguments);
    _exit(9);
  }
  WaitFor(pid, "vfork");
  CHECK_EQ(system("exit 0"), 0);
  FILE* pipe = popen("echo heard", "r");
  char text[20] = "";
  CHECK(pipe && fgets(text, sizeof text, pipe) && !strcmp(text, "heard\n"));
  CHECK_EQ(pclose(pipe), 0);
}

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "after-exec")) {
    CollectHard("after exec");
    puts("all right");
    return 0;
  }
  end = Seconds() + (argc > 1 ? atof(argv[1]) : 2);
  live = MakeLive(3000, 1);
  pthread_t mutator[2];
  for (size_t i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&mutator[i], NULL, Mutate, (void*)(i + 2)), 0);
  StartCollector();
  for (int round = 0; Seconds() < end; round++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      WorkInChild(round % 4 == 0 ? Grandchild : NULL);
      _exit(0);
    }
    // A child that does nothing and one that only execs, while the other works.
    pid_t idle = fork();
    CHECK(idle >= 0);
    if (idle == 0) _exit(0);
    WaitFor(idle, "an idle child");
    Programs();
    WaitFor(pid, "a child");
    CheckLive(live, 3000, 1);
  }
  // exec with threads and a collection under way; the settings are inherited.
  CheckLive(live, 3000, 1);
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  CHECK(n > 0);
  path[n] = 0;
  execl(path, path, "after-exec", (char*)NULL);
  CHECK(!"execl came back");
}
