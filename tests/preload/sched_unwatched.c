// SPDX-License-Identifier: Apache-2.0
// A thread that waits for a descriptor of another process, while all others leave the scheduler by
// keeping their kernel threads: somebody has to look at the descriptor, also seconds later.
// run: pace=long
// run: name=one pace=long env=GOMAXPROCS=1
// timeout: 60
#include <sys/fsuid.h>
#include <sys/wait.h>

#include "pthreads.h"

static int ends[2];

static void* Reads(void* arg) {
  char c = 0;
  CHECK_EQ(read(ends[0], &c, 1), 1);
  CHECK_EQ(c, 'x');
  return arg;
}
// What the kernel keeps for each of its threads.
static void LeaveScheduler(void) { setfsuid(getuid()); }

static void* LeavesLater(void* arg) {
  usleep(200000);
  LeaveScheduler();
  return arg;
}

int main(void) {
  CHECK(pipe(ends) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    sleep(6);  // so that all of the library sleeps, too
    _exit(write(ends[1], "x", 1) != 1);
  }
  alarm(20);  // it took a minute, or for ever
  pthread_t reader = Start(Reads, NULL), other = Start(LeavesLater, NULL);
  usleep(50000);
  LeaveScheduler();
  Join(other);
  Join(reader);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  return 0;
}
