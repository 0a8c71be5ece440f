// SPDX-License-Identifier: Apache-2.0
// fork in a process whose other threads hammer malloc: the child allocates, frees what its parent's
// threads made, starts threads and forks again; nothing may hang.
// run: name=loop loop
// run: name=cross cross
// run: name=nested nested
// run: name=handlers handlers
// run: name=from_threads from_threads
// timeout: 40
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "check.h"

enum { kHammers = 4, kShared = 3000 };
static atomic_int stop;
static unsigned char* shared[kShared];
static size_t SharedSize(int i) {
  return 1 + (size_t)(i * 37 % 3000) + (i % 300 == 0 ? 200000 : 0);
}

static void Mix(uint64_t seed, int rounds) {
  Random r = {seed};
  unsigned char* p[50] = {0};
  size_t n[50];
  for (int i = 0; i < rounds; i++) {
    int k = (int)Below(&r, 50);
    if (p[k]) {
      CHECK(Verify(p[k], n[k], seed) == n[k]);
      free(p[k]);
    }
    n[k] = 1 + Below(&r, Below(&r, 100) ? 500 : 100000);
    CHECK((p[k] = malloc(n[k])) != NULL);
    Fill(p[k], n[k], seed);
  }
  for (int k = 0; k < 50; k++) free(p[k]);
}
static void* Hammer(void* arg) {
  uint64_t seed = (uint64_t)(uintptr_t)arg;
  while (!stop) Mix(seed++, 300);
  return NULL;
}
static void* MixThread(void* arg) {
  Mix((uint64_t)(uintptr_t)arg, 2000);
  return NULL;
}
// Blocks that belong to a thread other than the main one.
static void* MakeShared(void* arg) {
  (void)arg;
  for (int i = 0; i < kShared; i++) {
    CHECK((shared[i] = malloc(SharedSize(i))) != NULL);
    Fill(shared[i], SharedSize(i), (uint64_t)i);
  }
  // Stays alive, so that its cache is neither flushed nor adopted before the fork.
  while (!stop) SleepMs(5);
  return NULL;
}
static void FreeShared(void) {
  for (int i = 0; i < kShared; i++) {
    CHECK_MSG(Verify(shared[i], SharedSize(i), (uint64_t)i) == SharedSize(i),
              "block %d was overwritten", i);
    free(shared[i]);
  }
}

static void Finish(pid_t pid) {
  CHECK_MSG(pid > 0, "fork: %s", strerror(errno));
  // A child that hangs must not hang the test for its whole time.
  for (int i = 0; i < 15000; i++) {
    int status;
    pid_t got = waitpid(pid, &status, WNOHANG);
    CHECK(got >= 0);
    if (got == pid) {
      CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with wait status %#x",
                status);
      return;
    }
    SleepMs(1);
  }
  CHECK_MSG(0, "a child hangs");
}

static void ChildThreads(uint64_t seed) {
  pthread_t t[3];
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_create(&t[i], NULL, MixThread, (void*)(uintptr_t)(seed + (uint64_t)i)), 0);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
}

static void Nest(int depth) {
  Mix((uint64_t)depth + 1, 300);
  if (depth == 0) return;
  pid_t pid = fork();
  if (pid == 0) {
    ChildThreads((uint64_t)depth * 10);
    Nest(depth - 1);
    exit(0);
  }
  Finish(pid);
  Mix((uint64_t)depth + 2, 300);
}

static atomic_int prepared, in_parent;
static int in_child;
static void* carried[3];
static void Prepare(void) {
  prepared++;
  for (int i = 0; i < 3; i++) carried[i] = malloc(100 * (size_t)(i + 1));
  Mix(5, 100);
}
static void Parent(void) {
  in_parent++;
  Mix(6, 100);
  for (int i = 0; i < 3; i++) free(carried[i]);
}
static void InChild(void) {
  in_child++;
  Mix(7, 100);
  for (int i = 0; i < 3; i++) free(carried[i]);
}

static void* Forker(void* arg) {
  uint64_t seed = (uint64_t)(uintptr_t)arg;
  for (int i = 0; i < 30; i++) {
    Mix(seed, 50);
    pid_t pid = fork();
    if (pid == 0) {
      Mix(seed + 9, 500);
      ChildThreads(seed);
      _exit(0);
    }
    Finish(pid);
  }
  return NULL;
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "loop";
  // The stderr of children that fail a check is this process's own.
  pthread_t t[kHammers], maker;
  for (size_t i = 0; i < kHammers; i++)
    CHECK_EQ(pthread_create(&t[i], NULL, Hammer, (void*)(i * 1000 + 1)), 0);
  if (!strcmp(mode, "loop")) {
    for (int i = 0; i < 60; i++) {
      Mix((uint64_t)i, 20);
      pid_t pid = fork();
      if (pid == 0) {
        Mix((uint64_t)i + 5, 1000);
        if (i % 4 == 0) ChildThreads((uint64_t)i);
        // Through exit as well, which flushes and frees, and through _exit.
        if (i % 2) exit(0);
        _exit(0);
      }
      Finish(pid);
    }
  } else if (!strcmp(mode, "cross")) {
    CHECK_EQ(pthread_create(&maker, NULL, MakeShared, NULL), 0);
    while (!((void* volatile*)shared)[kShared - 1]) SleepMs(1);
    SleepMs(20);
    for (int i = 0; i < 20; i++) {
      pid_t pid = fork();
      if (pid == 0) {
        FreeShared();
        Mix(3, 3000);
        // All of it is free: as much again must fit without new memory.
        stop = 1;
        MakeShared(NULL);
        FreeShared();
        exit(0);
      }
      Finish(pid);
    }
    FreeShared();
    stop = 1;
    pthread_join(maker, NULL);
  } else if (!strcmp(mode, "nested")) {
    for (int i = 0; i < 4; i++) Nest(6);
  } else if (!strcmp(mode, "handlers")) {
    CHECK_EQ(pthread_atfork(Prepare, Parent, InChild), 0);
    for (int i = 0; i < 30; i++) {
      pid_t pid = fork();
      if (pid == 0) {
        CHECK_EQ(in_child, 1);
        ChildThreads((uint64_t)i);
        exit(0);
      }
      Finish(pid);
    }
    CHECK(prepared == 30 && in_parent == 30 && in_child == 0);
  } else {
    pthread_t f[3];
    for (size_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&f[i], NULL, Forker, (void*)(i + 1)), 0);
    for (int i = 0; i < 3; i++) pthread_join(f[i], NULL);
  }
  stop = 1;
  for (int i = 0; i < kHammers; i++) pthread_join(t[i], NULL);
  puts("forks right");
  return 0;
}
