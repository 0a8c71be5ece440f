// SPDX-License-Identifier: Apache-2.0
// A program that locks itself in while its threads wait in every way: the filter of system calls
// allows what those threads need natively, and nothing of what a scheduler might need. No thread is
// lost, and nobody is killed.
// run: name=kill kill
// run: name=eperm eperm
// run: name=enosys enosys
// run: name=before before
// run: name=one env=GOMAXPROCS=1 kill
// timeout: 40
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "pthreads.h"
#include "seccomp.h"

enum { kWays = 10 };
static int pipes[kWays][2];
static sem_t sem;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static atomic_int entered, gate, done;

static void* Waits(void* arg) {
  const int way = (int)(intptr_t)arg % kWays;
  char text[8] = "";
  struct pollfd p = {pipes[way][0], POLLIN, 0};
  entered++;
  switch (way) {
    case 0:
    case 1: CHECK_EQ(read(pipes[way][0], text, 1), 1); break;
    case 2: CHECK_EQ(recv(pipes[way][0], text, 1, 0), 1); break;
    case 3:
      CHECK(poll(&p, 1, -1) == 1 && p.revents == POLLIN);
      CHECK_EQ(read(pipes[way][0], text, 1), 1);
      break;
    case 4: CHECK_EQ(sem_wait(&sem), 0); break;
    case 5:
      pthread_mutex_lock(&mutex);
      while (!gate) pthread_cond_wait(&cond, &mutex);
      pthread_mutex_unlock(&mutex);
      break;
    case 6:
      while (!gate) SleepMs(2);
      break;
    case 7:  // computes
      while (!gate) {
        for (volatile int i = 0; i < 100000; i++) {
        }
      }
      break;
    case 8: {  // a large write that others read
      char* much = calloc(1, 300000);
      CHECK_EQ(write(pipes[8][1], much, 300000), 300000);
      free(much);
      break;
    }
    case 9:
      for (size_t have = 0; have < 300000;) {
        static char in[65536];
        ssize_t n = read(pipes[8][0], in, sizeof in);
        CHECK(n > 0);
        have += (size_t)n;
        if (!gate && have > 65536) SleepMs(1);
      }
      break;
  }
  // And again, now that the filter is there.
  while (!gate) SleepMs(2);
  if (way < 4) CHECK_EQ(read(pipes[way][0], text, 1), 1);
  done++;
  return NULL;
}

static const int allowed[] = {
    SYS_read,   SYS_write,        SYS_recvfrom,        SYS_sendto,     SYS_poll,
    SYS_futex,  SYS_nanosleep,    SYS_clock_nanosleep, SYS_exit,       SYS_exit_group,
    SYS_mmap,   SYS_munmap,       SYS_mprotect,        SYS_madvise,    SYS_brk,
    SYS_mremap, SYS_rt_sigreturn, SYS_restart_syscall, SYS_newfstatat, SYS_rt_sigprocmask,
};

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "kill";
  const int before = !strcmp(mode, "before");
  enum { kAllowed = sizeof allowed / sizeof *allowed, kThreads = 2 * kWays };
  pthread_t t[kThreads];
  CHECK_EQ(sem_init(&sem, 0, 0), 0);
  for (int i = 0; i < kWays; i++)
    CHECK_EQ(i % 2 == 0 && i < 8 ? socketpair(AF_UNIX, SOCK_STREAM, 0, pipes[i]) : pipe(pipes[i]),
             0);
  static const int none[] = {SYS_epoll_create1, SYS_epoll_ctl, SYS_eventfd2, SYS_preadv2};
  if (before && FilterCalls(none, 4, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW, 0) != 0)
    SKIP("this system refuses seccomp filters");
  // One thread of each way that takes bytes away from another would mix them up.
  int count = 0;
  for (intptr_t i = 0; i < kThreads; i++)
    if (i % kWays < 8 || i < kWays) t[count++] = Start(Waits, (void*)i);
  EVENTUALLY(entered == count);
  Moment();
  puts("filtered");
  fflush(stdout);
  unsigned verdict = !strcmp(mode, "eperm")    ? SECCOMP_RET_ERRNO | EPERM
                     : !strcmp(mode, "enosys") ? SECCOMP_RET_ERRNO | ENOSYS
                                               : SECCOMP_RET_KILL_PROCESS;
  if (!before && FilterCalls(allowed, kAllowed, SECCOMP_RET_ALLOW, verdict, 0) != 0)
    SKIP("this system refuses seccomp filters");
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 4; i++)
      for (int k = 0; k < 2; k++) CHECK_EQ(write(pipes[i][1], "x", 1), 1);
    if (round) break;
    for (int k = 0; k < 2; k++) CHECK_EQ(sem_post(&sem), 0);
    pthread_mutex_lock(&mutex);
    gate = 1;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&mutex);
  }
  for (int i = 0; i < count; i++) Join(t[i]);
  CHECK_EQ(done, count);
  puts("all right");
  return 0;
}
