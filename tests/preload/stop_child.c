// SPDX-License-Identifier: Apache-2.0
// Children end while the world is stopped: a SIGCHLD that nobody handles wakes no other thread,
// whose call would end early. And one that is handled arrives, from the first moment on.
// run: env=UNDERGO=stress=stop
// run: name=off env=UNDERGO=sched=off,stress=stop
// run: name=plain env=UNDERGO=gc=off,sched=off
// run: name=preempted env=UNDERGO=stress=preempt
// timeout: 60
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kRounds = 150, kBlock = 1 << 20, kInstalls = 60 };
static atomic_int stop, handled;

static void* Waits(void* arg) {
  const struct timespec wait = {0, 3000000};
  struct sembuf down = {0, -1, 0};
  sigset_t set = SetOf(SIGUSR2, 0);
  siginfo_t info;
  const int id = semget(IPC_PRIVATE, 1, 0600);
  char* block = malloc(kBlock);
  CHECK(id >= 0 && block != NULL);
  for (int i = 0; i < kRounds; i++) {
    CHECK(semtimedop(id, &down, 1, &wait) == -1);
    CHECK_MSG(errno == EAGAIN, "semtimedop: %s", strerror(errno));
    CHECK(sigtimedwait(&set, &info, &wait) == -1);
    CHECK_MSG(errno == EAGAIN, "sigtimedwait: %s", strerror(errno));
    CHECK_EQ(getrandom(block, kBlock, 0), kBlock);
  }
  free(block);
  CHECK_EQ(semctl(id, 0, IPC_RMID), 0);
  stop = 1;
  return arg;
}
static void MakeChild(void) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) _exit(0);
  CHECK_EQ(waitpid(child, NULL, 0), child);
}
static void* MakesChildren(void* arg) {
  while (!stop) MakeChild();
  return arg;
}

// The first thread computes, so that it is asked to stop.
static void Unhandled(const char* name) {
  (void)name;
  pthread_t t[] = {Start(Waits, NULL), Start(MakesChildren, NULL)};
  while (!stop) {
    for (volatile int i = 0; i < 100000; i++) {
    }
  }
  for (int i = 0; i < 2; i++) Join(t[i]);
}

// All threads block it, as programs do that read it by sigwait or signalfd: none may be dropped.
static void* Allocates(void* arg) {
  while (!stop) free(malloc(40000));
  return arg;
}
static void Blocked(const char* name) {
  (void)name;
  const sigset_t child = SetOf(SIGCHLD, 0);
  const struct timespec most = {20, 0};
  stop = 0;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &child, NULL), 0);
  pthread_t t[] = {Start(Allocates, NULL), Start(Allocates, NULL)};
  for (int i = 0; i < kRounds * 4; i++) {
    MakeChild();
    CHECK_EQ(sigtimedwait(&child, NULL, &most), SIGCHLD);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) Join(t[i]);
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &child, NULL), 0);
}

static void OnChild(int sig) {
  (void)sig;
  free(malloc(100));
  handled++;
}
static void Handled(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = OnChild, .sa_flags = SA_RESTART};
  stop = 0;
  pthread_t t = Start(MakesChildren, NULL);
  for (int i = 0; i < kInstalls; i++) {
    CHECK_EQ(sigaction(SIGCHLD, &act, NULL), 0);
    const int before = handled;
    EVENTUALLY(handled > before + 2);
    CHECK(signal(SIGCHLD, SIG_DFL) == OnChild);
  }
  stop = 1;
  Join(t);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"unhandled", Unhandled}, {"blocked", Blocked}, {"handled", Handled}};
  return RUN_PARTS(parts);
}
