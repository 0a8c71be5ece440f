// SPDX-License-Identifier: Apache-2.0
// Threads without the usual surroundings: no /proc, no descriptor left, and descriptors that are
// closed by bare system calls while threads wait for them.
// run: name=closed closed
// run: name=bare bare
// run: name=one env=GOMAXPROCS=1 closed bare
// run: name=no_proc no_proc
// run: name=full full
// timeout: 60
#include <poll.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kWaiters = 30 };
static int ends[kWaiters][2];
static atomic_int entered, done, gate;

static long Bare(long number, long a, long b, long c) {
  long r;
  __asm__ volatile("syscall"
                   : "=a"(r)
                   : "a"(number), "D"(a), "S"(b), "d"(c)
                   : "rcx", "r11", "memory");
  return r;
}

static void* Waits(void* arg) {
  const int i = (int)(intptr_t)arg;
  char c;
  struct pollfd p = {ends[i][0], POLLIN, 0};
  entered++;
  if (i % 3 == 2) {
    poll(&p, 1, -1);
  } else {
    ssize_t n = i % 2 ? recv(ends[i][0], &c, 1, 0) : read(ends[i][0], &c, 1);
    CHECK_MSG(n <= 0, "%zd bytes out of nothing", n);
  }
  done++;
  return NULL;
}
static void* PingsBack(void* arg) {
  int* fd = arg;
  char c;
  while (read(fd[0], &c, 1) == 1) CHECK_EQ(write(fd[1], &c, 1), 1);
  return NULL;
}
// Everything works on.
static void Works(void) {
  int to[2], from[2];
  CHECK(pipe(to) == 0 && pipe(from) == 0);
  int fd[2] = {to[0], from[1]};
  pthread_t t = Start(PingsBack, fd);
  for (int i = 0; i < 200; i++) {
    char out = (char)i, in;
    if (i % 50 == 0) SleepMs(2);
    CHECK(write(to[1], &out, 1) == 1 && read(from[0], &in, 1) == 1 && in == out);
  }
  close(to[1]);
  Join(t);
  close(to[0]), close(from[0]), close(from[1]);
}
static void CloseAll(int bare) {
  entered = done = 0;
  pthread_t t[kWaiters];
  for (int i = 0; i < kWaiters; i++)
    CHECK_EQ(i % 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends[i]) : pipe(ends[i]), 0);
  for (intptr_t i = 0; i < kWaiters; i++) t[i] = Start(Waits, (void*)i);
  EVENTUALLY(entered == kWaiters);
  Moment();
  CHECK_EQ(done, 0);
  for (int fd = 3; fd < 1024; fd++) {
    if (bare)
      Bare(SYS_close, fd, 0, 0);
    else
      close(fd);
  }
  // Who waits for a number that was closed so, and is used again, may see the new file.
  if (!bare) Works();
  for (int i = 0; i < kWaiters; i++) Join(t[i]);
  Works();
}
static void Closed(const char* name) {
  (void)name;
  for (int i = 0; i < 5; i++) CloseAll(0);
}
static void BareCalls(const char* name) {
  (void)name;
  CloseAll(1);
}

static void* Computes(void* arg) {
  while (!gate) {
    for (volatile int i = 0; i < 100000; i++) {
    }
  }
  return arg;
}
static void* ReadsStdio(void* arg) {
  FILE* f = fdopen(*(int*)arg, "r");
  char line[64];
  CHECK(f != NULL && fgets(line, sizeof line, f) != NULL);
  CHECK(!strcmp(line, "a line\n"));
  fclose(f);
  done++;
  return NULL;
}
// Computing threads, and calls that block without anybody knowing.
static void Mixture(void) {
  gate = done = 0;
  pthread_t c[3], r[8];
  for (int i = 0; i < 3; i++) c[i] = Start(Computes, NULL);
  for (int i = 0; i < 8; i++) {
    CHECK_EQ(pipe(ends[i]), 0);
    r[i] = Start(ReadsStdio, &ends[i][0]);
  }
  Moment();
  Works();
  for (int i = 0; i < 8; i++) CHECK_EQ(write(ends[i][1], "a line\n", 7), 7);
  for (int i = 0; i < 8; i++) Join(r[i]);
  gate = 1;
  for (int i = 0; i < 3; i++) Join(c[i]);
  for (int i = 0; i < 8; i++) close(ends[i][1]);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    gate = 1;
    Join(Start(Computes, NULL));
    _exit(5);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 5);
}
static void NoProc(const char* name) {
  (void)name;
  char root[] = "/tmp/undergo-bare-XXXXXX";
  CHECK(mkdtemp(root) != NULL);
  int r = chroot(root);
  rmdir(root);
  if (r != 0) SKIP("chroot is refused");
  CHECK(chdir("/") == 0 && access("/proc", F_OK) != 0);
  Mixture();
}
// No descriptor is left for the library.
static void Full(const char* name) {
  (void)name;
  for (int i = 0; i < kWaiters; i++) CHECK_EQ(pipe(ends[i]), 0);
  struct rlimit few = {0, 0};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &few), 0);
  rlim_t before = few.rlim_cur;
  few.rlim_cur = (rlim_t)ends[kWaiters - 1][1] + 1;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  entered = done = 0;
  pthread_t t[kWaiters];
  for (intptr_t i = 0; i < kWaiters; i += 2) t[i] = Start(Waits, (void*)i);
  EVENTUALLY(entered == kWaiters / 2);
  Moment();
  CHECK_EQ(done, 0);
  for (int i = 0; i < kWaiters; i += 2) close(ends[i][1]);
  for (int i = 0; i < kWaiters; i += 2) Join(t[i]);
  few.rlim_cur = before;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"closed", Closed}, {"bare", BareCalls}, {"full", Full}, {"no_proc", NoProc}};
  return RUN_PARTS(parts);
}
