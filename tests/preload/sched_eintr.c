// SPDX-License-Identifier: Apache-2.0
// What a handler does to the call that it interrupts: with SA_RESTART reads, locks and waits for
// children go on, sleeps and polls end with EINTR; without, most end. Waits for mutexes, conditions
// and joins never show it. And nothing but a signal of the program's own may cause it.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=preempted pace=long env=UNDERGO=stress=preempt
// timeout: 40
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

static int ends[2], pair[2], timed[2], listener, ep;
static pid_t child;
static sem_t sem;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_t other;
static unsigned word;
static int queue, release_cond;
static atomic_int entered, handled, gate;
static void OnSignal(int sig) {
  (void)sig;
  handled++;
}

// R: goes on under SA_RESTART. N: always EINTR. G: goes on in any case.
enum { kCalls = 27 };
static const char kinds[kCalls + 1] = "RRRRNRNNNNNNNNNRNNRNGGGGGGN";
static long Call(int which) {
  char c;
  struct iovec v = {&c, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  struct timespec hour = {3600, 0}, when = In(CLOCK_REALTIME, 3600000);
  struct pollfd p = {ends[0], POLLIN, 0};
  struct epoll_event e;
  struct {
    long type;
    char text[8];
  } message;
  sigset_t usr2 = SetOf(SIGUSR2, 0);
  siginfo_t info;
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  switch (which) {
    case 0: return read(ends[0], &c, 1);
    case 1: return recv(pair[0], &c, 1, 0);
    case 2: return recvmsg(pair[0], &m, 0);
    case 3: return accept(listener, NULL, NULL) < 0 ? -1 : 0;
    case 4: return recv(timed[0], &c, 1, 0);
    case 5: return waitpid(child, NULL, 0);
    case 6: return poll(&p, 1, -1);
    case 7: return ppoll(&p, 1, NULL, NULL);
    case 8: return select(ends[0] + 1, &set, NULL, NULL, NULL);
    case 9: return pselect(ends[0] + 1, &set, NULL, NULL, NULL, NULL);
    case 10: return epoll_wait(ep, &e, 1, -1);
    case 11: return epoll_pwait(ep, &e, 1, -1, NULL);
    case 12: return nanosleep(&hour, NULL);
    case 13: return (errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL)) ? -1 : 0;
    case 14: return usleep(900000000);
    case 15: return sem_wait(&sem);
    case 16: return sem_timedwait(&sem, &when);
    case 17: return sigtimedwait(&usr2, &info, &hour);
    case 18: return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    case 19: return msgrcv(queue, &message, 8, 1, 0);
    case 20: return pthread_mutex_lock(&mutex) || pthread_mutex_unlock(&mutex) ? -2 : 0;
    case 21:
      pthread_mutex_lock(&mutex);
      while (!release_cond)
        if (pthread_cond_wait(&cond, &mutex) != 0) return -2;
      return -pthread_mutex_unlock(&mutex);
    case 22: return pthread_rwlock_wrlock(&rw) || pthread_rwlock_unlock(&rw) ? -2 : 0;
    case 23: return pthread_join(other, NULL) ? -2 : 0;
    case 24: return pthread_barrier_wait(&barrier) > 0 ? -2 : 0;
    case 25: return pthread_rwlock_rdlock(&rw) || pthread_rwlock_unlock(&rw) ? -2 : 0;
    case 26: return pause();
  }
  return -3;
}
static void* Calls(void* arg) {
  entered = 1;
  long r = Call((int)(intptr_t)arg);
  int error = errno;
  entered = 2;
  return (void*)(intptr_t)(r == -1 ? -error : r < 0 ? -1000 : 0);
}
static void* UntilGate(void* arg) {
  while (!gate) SleepMs(1);
  return arg;
}
// Makes the call end by what it waits for.
static void Release(int which) {
  char c = 'x';
  struct {
    long type;
    char text[8];
  } message = {1, "text"};
  switch (which) {
    case 0: CHECK_EQ(write(ends[1], &c, 1), 1); break;
    case 1:
    case 2: CHECK_EQ(write(pair[1], &c, 1), 1); break;
    case 3: {
      struct sockaddr_in a;
      socklen_t size = sizeof a;
      getsockname(listener, (struct sockaddr*)&a, &size);
      int fd = socket(AF_INET, SOCK_STREAM, 0);
      CHECK_EQ(connect(fd, (struct sockaddr*)&a, size), 0);
      close(fd);
      break;
    }
    case 5: kill(child, SIGKILL); break;
    case 15:
    case 16: sem_post(&sem); break;
    case 18:
      __atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
      syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
      break;
    case 19: CHECK_EQ(msgsnd(queue, &message, 8, 0), 0); break;
    case 20: pthread_mutex_unlock(&mutex); break;
    case 21:
      pthread_mutex_lock(&mutex);
      release_cond = 1;
      pthread_cond_signal(&cond);
      pthread_mutex_unlock(&mutex);
      break;
    case 22:
    case 25: pthread_rwlock_unlock(&rw); break;
    case 23: gate = 1; break;
    case 24: pthread_barrier_wait(&barrier); break;
  }
}
static void Prepare(int which) {
  word = 0, release_cond = 0, gate = 0;
  sem_init(&sem, 0, 0);
  if (which == 5) {
    child = fork();
    CHECK(child >= 0);
    if (child == 0) WaitToBeKilled();
  }
  if (which == 20) pthread_mutex_lock(&mutex);
  if (which == 22 || which == 25) pthread_rwlock_wrlock(&rw);
  if (which == 23) other = Start(UntilGate, NULL);
}
static void Table(int restart) {
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = restart ? SA_RESTART : 0};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  for (int i = 0; i < kCalls; i++) {
    Prepare(i);
    entered = handled = 0;
    pthread_t t = Start(Calls, (void*)(intptr_t)i);
    EVENTUALLY(entered == 1);
    SleepMs(5);
    CHECK_MSG(entered == 1, "call %d came back by itself", i);
    const int ends_early = kinds[i] == 'N' || (kinds[i] == 'R' && !restart);
    for (int tries = 0; entered == 1 && (ends_early || tries < 2); tries++) {
      CHECK_MSG(tries < 3000, "call %d does not notice signals", i);
      int before = handled;
      CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
      EVENTUALLY(handled > before);  // the handler runs while the thread waits
      SleepMs(3);
    }
    if (!ends_early) {
      CHECK_MSG(entered == 1, "call %d ended by a signal", i);
      Release(i);
    }
    long r = (long)Join(t);
    CHECK_MSG(r == (ends_early ? -EINTR : 0), "call %d: %ld", i, r);
    if (ends_early && i == 5) {
      kill(child, SIGKILL);
      CHECK(waitpid(child, NULL, 0) == child);
    }
  }
}
static void Restart(const char* name) {
  (void)name;
  Table(1);
}
static void NoRestart(const char* name) {
  (void)name;
  Table(0);
}

// Threads that compute and threads that wait: being preempted is no signal.
static void* Spins(void* arg) {
  for (volatile unsigned i = 0; !gate; i++) {
  }
  return arg;
}
static void* Sleeps(void* arg) {
  char c;
  for (int i = 0; i < 15; i++) {
    struct timespec t = {0, 3000000};
    CHECK_EQ(nanosleep(&t, NULL), 0);
    CHECK_EQ(poll(NULL, 0, 2), 0);
    CHECK(recv(timed[1], &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    for (volatile unsigned k = 0; k < 300000; k++) {
    }
  }
  return arg;
}
static void Preempted(const char* name) {
  (void)name;
  gate = 0;
  pthread_t s[4], t[10];
  for (int i = 0; i < 4; i++) s[i] = Start(Spins, NULL);
  for (int i = 0; i < 10; i++) t[i] = Start(Sleeps, NULL);
  for (int i = 0; i < 10; i++) Join(t[i]);
  gate = 1;
  for (int i = 0; i < 4; i++) Join(s[i]);
}

// By an instruction of its own, as stdio and the resolver do it inside of libc.
static long UnseenPoll(int ms) {
  long result;
  __asm__ volatile("movl %1, %%eax; syscall"
                   : "=&a"(result)
                   : "i"(SYS_poll), "D"(NULL), "S"(0), "d"(ms)
                   : "rcx", "r11", "memory");
  return result;
}
static void* Unseen(void* arg) {
  for (int i = 0; i < 4; i++) CHECK_EQ(UnseenPoll(50), 0);
  for (int i = 0; i < 100; i++) CHECK_EQ(UnseenPoll(1), 0);
  return arg;
}
// A call that the library does not see, while others want to run.
static void CallUnseen(const char* name) {
  (void)name;
  gate = 0;
  pthread_t s[3], t[3];
  for (int i = 0; i < 3; i++) s[i] = Start(Spins, NULL), t[i] = Start(Unseen, NULL);
  for (int i = 0; i < 3; i++) Join(t[i]);
  gate = 1;
  for (int i = 0; i < 3; i++) Join(s[i]);
}

int main(int argc, char** argv) {
  struct timeval hour = {3600, 0};
  struct epoll_event e = {EPOLLIN, {.u32 = 1}};
  CHECK(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 &&
        socketpair(AF_UNIX, SOCK_STREAM, 0, timed) == 0);
  CHECK_EQ(setsockopt(timed[0], SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof hour), 0);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(listen(listener, 5), 0);
  ep = epoll_create1(0);
  CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &e), 0);
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, 2), 0);
  sigset_t block = SetOf(SIGUSR2, 0);
  pthread_sigmask(SIG_BLOCK, &block, NULL);
  queue = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
  CHECK(queue >= 0);
  static const Part parts[] = {{"restart", Restart},
                               {"no_restart", NoRestart},
                               {"preempted", Preempted},
                               {"unseen", CallUnseen}};
  int status = RUN_PARTS(parts);
  msgctl(queue, IPC_RMID, NULL);
  return status;
}
