// SPDX-License-Identifier: Apache-2.0
// A process whose threads have all ended counts as single-threaded again: it may change its user
// namespace, become a daemon, and has one thread in the kernel's eyes after a while. Later it may
// have threads again.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=count pace=long count
// timeout: 40
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "pthreads.h"

static atomic_int counter;
static void* Counts(void* arg) {
  SleepMs(1);
  sched_yield();
  counter++;
  return arg;
}
static void UseThreads(void) {
  pthread_t t[10];
  counter = 0;
  for (int i = 0; i < 10; i++) t[i] = Start(Counts, NULL);
  for (int i = 0; i < 10; i++) Join(t[i]);
  CHECK_EQ(counter, 10);
}
static int InChild(int (*body)(void)) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(60);
    _exit(body());
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK_MSG(WIFEXITED(status), "child: status 0x%x", status);
  return WEXITSTATUS(status);
}

static int Unshares(void) { return unshare(CLONE_NEWUSER) == 0 ? 0 : errno; }
static int UnsharesLater(void) {
  UseThreads();
  int error = Unshares();
  if (error == 0) UseThreads();
  return error;
}
static void Namespace(const char* name) {
  (void)name;
  int native = InChild(Unshares);
  if (native != 0) return;  // not permitted here
  CHECK_EQ(InChild(UnsharesLater), 0);
}

// daemon() forks; the child goes on with threads and tells by a pipe.
static int ends[2];
static int BecomesDaemon(void) {
  UseThreads();
  if (daemon(1, 1) != 0) return 1;
  UseThreads();
  char c = getppid() > 0 && getsid(0) != 0 ? 'd' : 'x';
  return write(ends[1], &c, 1) == 1 ? 0 : 2;
}
static void Daemon(const char* name) {
  (void)name;
  char c = 0;
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(InChild(BecomesDaemon), 0);
  CHECK(read(ends[0], &c, 1) == 1 && c == 'd');
  close(ends[0]), close(ends[1]);
}

static void Count(const char* name) {
  (void)name;
  for (int round = 0; round < 2; round++) {
    UseThreads();
    EVENTUALLY(ProcField("/proc/self/status", "Threads") == 1);
  }
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"namespace", Namespace}, {"daemon", Daemon}, {"count", Count}};
  if (argc > 1) return RUN_PARTS(parts);
  return RunParts(parts, 2, argc, argv);  // counting takes seconds
}
