// SPDX-License-Identifier: Apache-2.0
// vfork and exec, posix_spawn, system and popen, while other threads hammer malloc; a child that
// ends between vfork and exec leaves its parent's heap intact.
// run:
// timeout: 40
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "check.h"

extern char** environ;
static atomic_int stop;

static void* Hammer(void* arg) {
  Random r = {(uint64_t)(uintptr_t)arg};
  while (!stop) {
    size_t n = 1 + Below(&r, 3000);
    unsigned char* p = malloc(n);
    CHECK(p);
    Fill(p, n, n);
    CHECK(Verify(p, n, n) == n);
    free(p);
  }
  return NULL;
}
static int Wait(pid_t pid) {
  int status;
  CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status));
  return WEXITSTATUS(status);
}

int main(void) {
  pthread_t t[3];
  for (size_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, Hammer, (void*)(i + 1)), 0);
  char* quiet[] = {"true", NULL};
  char* echo[] = {"sh", "-c", "exit 7", NULL};
  for (int i = 0; i < 60; i++) {
    char* volatile block = malloc(500);
    Fill(block, 500, (uint64_t)i);
    pid_t pid = vfork();
    if (pid == 0) {
      execv("/bin/true", quiet);
      _exit(127);
    }
    CHECK_EQ(Wait(pid), 0);
    pid = vfork();
    if (pid == 0) {
      execv("/nonexistent/program", quiet);
      _exit(66);
    }
    CHECK_EQ(Wait(pid), 66);
    // Not allowed by POSIX, done by shells: the child allocates in its parent's memory.
    pid = vfork();
    if (pid == 0) {
      for (int k = 0; k < 50; k++) free(malloc((size_t)(k + 1) * 40));
      _exit(0);
    }
    CHECK_EQ(Wait(pid), 0);
    CHECK_EQ(posix_spawn(&pid, "/bin/sh", NULL, NULL, echo, environ), 0);
    CHECK_EQ(Wait(pid), 7);
    CHECK_EQ(posix_spawnp(&pid, "true", NULL, NULL, quiet, environ), 0);
    CHECK_EQ(Wait(pid), 0);
    CHECK(Verify(block, 500, (uint64_t)i) == 500);
    free(block);
  }
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(WEXITSTATUS(system("exit 5")), 5);
    FILE* f = popen("echo one; echo two", "r");
    CHECK(f);
    char* line = NULL;
    size_t size = 0;
    CHECK(getline(&line, &size, f) == 4 && !strcmp(line, "one\n"));
    CHECK(getline(&line, &size, f) == 4 && !strcmp(line, "two\n"));
    CHECK(getline(&line, &size, f) == -1);
    free(line);
    CHECK_EQ(pclose(f), 0);
  }
  stop = 1;
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  puts("spawns right");
  return 0;
}
