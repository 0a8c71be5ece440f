// SPDX-License-Identifier: Apache-2.0
// Every kind of blocking call while the world is stopped and started all the time: none may end
// early, report EINTR or transfer less than it would alone.
// run: env=UNDERGO=stress=stop
// run: name=gc_off env=UNDERGO=gc=off,stress=stop
// timeout: 60
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <threads.h>

#include "check.h"

enum { kMs = 60, kRounds = 5, kBlock = 1 << 20 };
static const struct timespec kWait = {0, kMs * 1000000};

static struct timespec Soon(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  t.tv_nsec += kMs * 1000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  return t;
}

// The call must take the whole time, and give what it gives alone.
#define TIMED(call, result, error)                                                          \
  do {                                                                                      \
    double begin = Seconds();                                                               \
    errno = 0;                                                                              \
    long got = (long)(call);                                                                \
    int why = errno;                                                                        \
    double took = (Seconds() - begin) * 1e3;                                                \
    CHECK_MSG(got == (result) && why == (error), "%s: %ld, %s", #call, got, strerror(why)); \
    CHECK_MSG(took > kMs - 1.5, "%s took %.1f ms", #call, took);                            \
  } while (0)

static void* Sleeps(void* arg) {
  struct timespec t, left;
  for (int i = 0; i < kRounds; i++) {
    TIMED(nanosleep(&kWait, &left), 0, 0);
    TIMED(clock_nanosleep(CLOCK_MONOTONIC, 0, &kWait, &left), 0, 0);
    t = Soon(CLOCK_MONOTONIC);
    TIMED(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0, 0);
    TIMED(usleep(kMs * 1000), 0, 0);
    TIMED(thrd_sleep(&kWait, &left), 0, 0);
  }
  TIMED(sleep(1), 0, 0);
  return arg;
}

static void* Readiness(void* arg) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  int e = epoll_create1(0);
  struct epoll_event event = {EPOLLIN, {NULL}}, got_event;
  CHECK(e >= 0 && epoll_ctl(e, EPOLL_CTL_ADD, ends[0], &event) == 0);
  struct pollfd p = {ends[0], POLLIN, 0};
  sigset_t none;
  sigemptyset(&none);
  for (int i = 0; i < kRounds; i++) {
    TIMED(poll(&p, 1, kMs), 0, 0);
    TIMED(ppoll(&p, 1, &kWait, &none), 0, 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timeval v = {0, kMs * 1000};
    TIMED(select(ends[0] + 1, &set, NULL, NULL, &v), 0, 0);
    FD_SET(ends[0], &set);
    TIMED(pselect(ends[0] + 1, &set, NULL, NULL, &kWait, NULL), 0, 0);
    TIMED(epoll_wait(e, &got_event, 1, kMs), 0, 0);
    TIMED(epoll_pwait(e, &got_event, 1, kMs, &none), 0, 0);
  }
  return arg;
}

static void* Sync(void* arg) {
  sem_t s;
  sem_init(&s, 0, 0);
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  mtx_t cm;
  cnd_t cc;
  mtx_init(&cm, mtx_plain);
  cnd_init(&cc);
  for (int i = 0; i < kRounds; i++) {
    struct timespec t = Soon(CLOCK_REALTIME);
    TIMED(sem_timedwait(&s, &t), -1, ETIMEDOUT);
    t = Soon(CLOCK_MONOTONIC);
    TIMED(sem_clockwait(&s, CLOCK_MONOTONIC, &t), -1, ETIMEDOUT);
    pthread_mutex_lock(&m);
    t = Soon(CLOCK_REALTIME);
    TIMED(pthread_cond_timedwait(&c, &m, &t), ETIMEDOUT, 0);
    t = Soon(CLOCK_MONOTONIC);
    TIMED(pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &t), ETIMEDOUT, 0);
    pthread_mutex_unlock(&m);
    mtx_lock(&cm);
    t = Soon(CLOCK_REALTIME);
    TIMED(cnd_timedwait(&cc, &cm, &t), thrd_timedout, 0);
    mtx_unlock(&cm);
  }
  return arg;
}

static void* Signals(void* arg) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  for (int i = 0; i < kRounds; i++) TIMED(sigtimedwait(&set, &info, &kWait), -1, EAGAIN);
  return arg;
}

static void* Queues(void* arg) {
  struct mq_attr attr = {0, 4, 64, 0, {0}};
  char name[40], text[64];
  snprintf(name, sizeof name, "/undergo-test-%d", getpid());
  mqd_t q = mq_open(name, O_CREAT | O_RDWR, 0600, &attr);
  if (q < 0) return arg;
  mq_unlink(name);
  int id = semget(IPC_PRIVATE, 1, 0600 | IPC_CREAT);
  struct sembuf down = {0, -1, 0};
  for (int i = 0; i < kRounds; i++) {
    struct timespec t = Soon(CLOCK_REALTIME);
    TIMED(mq_timedreceive(q, text, sizeof text, NULL, &t), -1, ETIMEDOUT);
    if (id >= 0) TIMED(semtimedop(id, &down, 1, &kWait), -1, EAGAIN);
  }
  if (id >= 0) semctl(id, 0, IPC_RMID);
  mq_close(q);
  return arg;
}

static void* Sockets(void* arg) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  struct timeval v = {0, kMs * 1000};
  CHECK(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &v, sizeof v) == 0);
  char c;
  struct iovec vec = {&c, 1};
  struct msghdr m = {0};
  m.msg_iov = &vec;
  m.msg_iovlen = 1;
  struct mmsghdr mm = {m, 0};
  for (int i = 0; i < kRounds; i++) {
    TIMED(recv(ends[0], &c, 1, 0), -1, EAGAIN);
    TIMED(recvfrom(ends[0], &c, 1, 0, NULL, NULL), -1, EAGAIN);
    TIMED(recvmsg(ends[0], &m, 0), -1, EAGAIN);
    TIMED(recvmmsg(ends[0], &mm, 1, 0, NULL), -1, EAGAIN);
    TIMED(read(ends[0], &c, 1), -1, EAGAIN);
  }
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &v, sizeof v) == 0);
  CHECK(listen(listener, 1) == 0);
  for (int i = 0; i < kRounds; i++) TIMED(accept(listener, NULL, NULL), -1, EAGAIN);
  return arg;
}

// Both ends of a transfer in which each call would return less if a signal came in between.
static int flow[2], stream[2];

static void* Writer(void* arg) {
  char* block = malloc(kBlock);
  for (int i = 0; i < 40; i++) {
    Fill(block, kBlock, (uint64_t)i);
    ssize_t n = write(flow[1], block, kBlock);
    CHECK_MSG(n == kBlock, "write: %zd, %s", n, strerror(errno));
    struct iovec v[2] = {{block, kBlock / 2}, {block + kBlock / 2, kBlock / 2}};
    n = writev(flow[1], v, 2);
    CHECK_MSG(n == kBlock, "writev: %zd, %s", n, strerror(errno));
    n = send(stream[1], block, kBlock, 0);
    CHECK_MSG(n == kBlock, "send: %zd, %s", n, strerror(errno));
  }
  free(block);
  return arg;
}

static void* Reader(void* arg) {
  char* block = malloc(kBlock);
  for (int i = 0; i < 40; i++) {
    for (int k = 0; k < 2; k++) {
      for (size_t have = 0; have < kBlock;) {
        ssize_t n = read(flow[0], block + have, kBlock - have);
        CHECK_MSG(n > 0, "read: %zd, %s", n, strerror(errno));
        have += (size_t)n;
      }
      CHECK(Verify(block, kBlock, (uint64_t)i) == kBlock);
    }
    ssize_t n = recv(stream[0], block, kBlock, MSG_WAITALL);
    CHECK_MSG(n == kBlock, "recv: %zd, %s", n, strerror(errno));
    CHECK(Verify(block, kBlock, (uint64_t)i) == kBlock);
  }
  free(block);
  return arg;
}

static void* Random_(void* arg) {
  enum { kMuch = 8 << 20 };
  char* p = malloc(kMuch);
  for (int i = 0; i < 5; i++) {
    ssize_t n = getrandom(p, kMuch, 0);
    CHECK_MSG(n == kMuch, "getrandom: %zd, %s", n, strerror(errno));
  }
  free(p);
  return arg;
}

static void* Children(void* arg) {
  for (int i = 0; i < kRounds; i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      usleep(kMs * 1000);
      _exit(i);
    }
    int status;
    pid_t got = waitpid(child, &status, 0);
    CHECK_MSG(got == child && WEXITSTATUS(status) == i, "waitpid: %d, %s", got, strerror(errno));
  }
  return arg;
}

// Waits without a time limit that somebody else ends.
static sem_t go;
static int lock_file;
static void* Locks(void* arg) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", lock_file);
  for (int i = 0; i < 3; i++) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      int fd = open(path, O_RDWR);
      struct flock own = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
      if (flock(fd, LOCK_EX) || fcntl(fd, F_SETLK, &own) || write(ends[1], "x", 1) != 1) _exit(1);
      usleep(kMs * 1000);
      _exit(0);
    }
    char c;
    CHECK(read(ends[0], &c, 1) == 1);
    struct flock want = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CHECK_MSG(fcntl(lock_file, F_SETLKW, &want) == 0, "F_SETLKW: %s", strerror(errno));
    CHECK_MSG(flock(lock_file, LOCK_EX) == 0, "flock: %s", strerror(errno));
    want.l_type = F_UNLCK;
    CHECK(fcntl(lock_file, F_SETLK, &want) == 0 && flock(lock_file, LOCK_UN) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    close(ends[0]), close(ends[1]);
  }
  CHECK_MSG(sem_wait(&go) == 0, "sem_wait: %s", strerror(errno));
  return arg;
}

int main(void) {
  CHECK(pipe(flow) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
  lock_file = memfd_create("lock", 0);
  sem_init(&go, 0, 0);
  void* (*const kinds[])(void*) = {Sleeps, Readiness, Sync,    Signals,  Queues, Sockets,
                                   Writer, Reader,    Random_, Children, Locks};
  enum { kKinds = sizeof kinds / sizeof *kinds };
  pthread_t t[kKinds];
  for (int i = 0; i < kKinds; i++) CHECK(pthread_create(&t[i], NULL, kinds[i], NULL) == 0);
  for (int i = 0; i < kKinds - 1; i++) CHECK(pthread_join(t[i], NULL) == 0);
  sem_post(&go);
  CHECK(pthread_join(t[kKinds - 1], NULL) == 0);
  puts("no call noticed");
  return 0;
}
