// SPDX-License-Identifier: Apache-2.0
// The first collection begins in the very moment in which a process starts its first threads: the
// bounds of the main stack must be known before another thread runs in its place, and must not be
// written over that one's.
// run: env=GOGC=20
// run: name=report env=GOGC=20 env=UNDERGO=gc=report,log=/dev/null 100
// run: name=long pace=long env=GOGC=20 500
// timeout: 120
#include <sys/wait.h>

#include "pthreads.h"

static void* Works(void* arg) {
  void** list = NULL;
  for (int i = 0; i < 3000; i++) {
    void** block = malloc(600);
    block[0] = i % 16 ? list : NULL;
    list = block;
    if (i % 64 == 0) sched_yield();
  }
  return arg;
}

// With GOGC=20 the first collection begins at 800 KiB.
static void Child(int number) {
  for (int i = 0; i < 17 + number % 6; i++) memset(malloc(40000), 1, 40000);
  pthread_t t[3];
  for (int i = 0; i < 3; i++) t[i] = Start(Works, NULL);
  for (int i = 0; i < 3; i++) Join(t[i]);
  _exit(0);
}

int main(int argc, char** argv) {
  const int children = argc > 1 ? atoi(argv[1]) : 200;
  for (int i = 0; i < children; i++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) Child(i);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
  }
  puts("all right");
  return 0;
}
