// SPDX-License-Identifier: Apache-2.0
// Blocking reads and writes between threads of one process: pipes, socket pairs, eventfd, timerfd,
// terminals and FIFOs. Nothing is lost or cut short, timeouts and flags are as they were set, and
// no descriptor becomes non-blocking behind the program's back.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pthreads.h"

#define FAILS(call, error) CHECK_MSG((call) == -1 && errno == (error), "%s: %d", #call, errno)

typedef struct Ends {
  int in, out;
} Ends;
static void Blocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  CHECK_MSG(flags >= 0 && !(flags & O_NONBLOCK), "descriptor %d became non-blocking", fd);
}

// A byte goes round a ring of threads.
enum { kRing = 10, kLaps = 200 };
static int ring[kRing][2];
static void* Passes(void* arg) {
  const intptr_t me = (intptr_t)arg;
  unsigned char c;
  for (int lap = 0; lap < kLaps; lap++) {
    CHECK_EQ(read(ring[me][0], &c, 1), 1);
    CHECK_EQ(c, (unsigned char)lap);
    if (me == kRing - 1) c++;
    CHECK_EQ(write(ring[(me + 1) % kRing][1], &c, 1), 1);
  }
  return NULL;
}
static void RingOf(int sockets) {
  pthread_t t[kRing];
  for (intptr_t i = 0; i < kRing; i++) {
    CHECK_EQ(sockets ? socketpair(AF_UNIX, sockets, 0, ring[i]) : pipe(ring[i]), 0);
    t[i] = Start(Passes, (void*)i);
  }
  CHECK_EQ(write(ring[0][1], "", 1), 1);
  for (int i = 0; i < kRing; i++) Join(t[i]);
  for (int i = 0; i < kRing; i++) {
    Blocking(ring[i][0]), Blocking(ring[i][1]);
    close(ring[i][0]), close(ring[i][1]);
  }
}
static void Rings(const char* name) {
  (void)name;
  RingOf(0);
  RingOf(SOCK_STREAM);
  RingOf(SOCK_SEQPACKET);
}

// Much more than fits: a blocking write returns only when all is out, read gives what is there.
enum { kBlock = 1 << 20, kBlocks = 6 };
static void* WritesMuch(void* arg) {
  const int fd = ((Ends*)arg)->out;
  char* p = malloc(kBlock);
  for (int i = 0; i < kBlocks; i++) {
    Fill(p, kBlock, (uint64_t)i);
    struct iovec v[2] = {{p, 1000}, {p + 1000, kBlock - 1000}};
    CHECK_EQ(i % 2 ? writev(fd, v, 2) : write(fd, p, kBlock), kBlock);
  }
  free(p);
  return NULL;
}
static void* ReadsMuch(void* arg) {
  const int fd = ((Ends*)arg)->in;
  char* p = malloc(kBlock);
  for (int i = 0; i < kBlocks; i++) {
    for (size_t have = 0; have < kBlock;) {
      struct iovec v[2] = {{p + have, 1}, {p + have + 1, kBlock - have - 1}};
      ssize_t n = i % 3 ? read(fd, p + have, kBlock - have) : readv(fd, v, 2);
      CHECK_MSG(n > 0, "read: %zd, %s", n, strerror(errno));
      have += (size_t)n;
    }
    CHECK_EQ(Verify(p, kBlock, (uint64_t)i), kBlock);
  }
  CHECK_EQ(read(fd, p, 1), 0);  // the writer has closed
  free(p);
  return NULL;
}
static void Streams(const char* name) {
  (void)name;
  Ends e[3];
  pthread_t w[3], r[3];
  for (int i = 0; i < 3; i++) {
    int p[2];
    CHECK_EQ(i == 0 ? pipe(p) : socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    e[i] = (Ends){p[0], p[1]};
    w[i] = Start(WritesMuch, &e[i]);
    r[i] = Start(ReadsMuch, &e[i]);
  }
  for (int i = 0; i < 3; i++) {
    Join(w[i]);
    Blocking(e[i].out), Blocking(e[i].in);
    close(e[i].out);
    Join(r[i]);
    close(e[i].in);
  }
}

// recv with MSG_WAITALL, MSG_DONTWAIT and MSG_PEEK, O_NONBLOCK set by the program, and timeouts.
static void* SendsInParts(void* arg) {
  const int fd = *(int*)arg;
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(send(fd, "0123456789", 10, MSG_NOSIGNAL), 10);
    SleepMs(2);
  }
  return NULL;
}
static void Flags(const char* name) {
  (void)name;
  int s[2];
  char text[200];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
  FAILS(recv(s[0], text, 1, MSG_DONTWAIT), EAGAIN);
  pthread_t t = Start(SendsInParts, &s[1]);
  CHECK_EQ(recv(s[0], text, 100, MSG_WAITALL), 100);
  Join(t);
  t = Start(SendsInParts, &s[1]);
  CHECK(recv(s[0], text, 1, MSG_PEEK) == 1 && recv(s[0], text, 100, MSG_WAITALL) == 100);
  Join(t);
  struct timeval v = {0, 30000}, got;
  socklen_t size = sizeof got;
  CHECK_EQ(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &v, sizeof v), 0);
  struct timespec when = In(CLOCK_MONOTONIC, 30);
  FAILS(recv(s[0], text, 1, 0), EAGAIN);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  when = In(CLOCK_MONOTONIC, 30);
  FAILS(read(s[0], text, 1), EAGAIN);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  CHECK_EQ(getsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &got, &size), 0);
  CHECK(got.tv_sec == 0 && got.tv_usec >= 30000 && got.tv_usec < 50000);
  // What came before the time ran out is returned.
  CHECK_EQ(send(s[1], "abc", 3, 0), 3);
  CHECK_EQ(recv(s[0], text, 100, MSG_WAITALL), 3);
  CHECK_EQ(setsockopt(s[1], SOL_SOCKET, SO_SNDTIMEO, &v, sizeof v), 0);
  char* p = calloc(1, kBlock * 4);
  when = In(CLOCK_MONOTONIC, 30);
  ssize_t n = send(s[1], p, kBlock * 4, 0);
  CHECK(n > 0 && n < kBlock * 4);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  FAILS(send(s[1], p, kBlock, 0), EAGAIN);
  free(p);
  int on = 1;
  CHECK_EQ(ioctl(s[0], FIONBIO, &on), 0);
  CHECK(fcntl(s[0], F_GETFL) & O_NONBLOCK);
  while (recv(s[0], text, sizeof text, 0) > 0) {
  }
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(fcntl(s[0], F_SETFL, fcntl(s[0], F_GETFL) & ~O_NONBLOCK), 0);
  Blocking(s[0]);
  close(s[0]);
  FAILS(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
  close(s[1]);
  FAILS(recv(s[1], text, 1, 0), EBADF);
}

static int counter_fd, timer_fd;
static atomic_int sum;
static void* ReadsEvents(void* arg) {
  eventfd_t v;
  for (;;) {
    CHECK_EQ(eventfd_read(counter_fd, &v), 0);
    if (v > 1000) return arg;
    atomic_fetch_add(&sum, (int)v);
  }
}
static void* WaitsTimer(void* arg) {
  uint64_t n = 0, total = 0;
  while (total < 5) {
    CHECK_EQ(read(timer_fd, &n, sizeof n), sizeof n);
    total += n;
  }
  return arg;
}
static void Events(const char* name) {
  (void)name;
  counter_fd = eventfd(0, EFD_SEMAPHORE);
  pthread_t t[4];
  // As a semaphore each read takes one; the reader that meets the end value stops.
  CHECK(counter_fd >= 0);
  close(counter_fd);
  counter_fd = eventfd(0, 0);
  pthread_t r = Start(ReadsEvents, NULL);
  for (int i = 0; i < 500; i++) CHECK_EQ(eventfd_write(counter_fd, 1), 0);
  EVENTUALLY(sum == 500);
  CHECK_EQ(eventfd_write(counter_fd, 5000), 0);
  Join(r);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
  for (int i = 0; i < 4; i++) t[i] = Start(WaitsTimer, NULL);
  struct itimerspec every = {{0, 3000000}, {0, 3000000}};
  CHECK_EQ(timerfd_settime(timer_fd, 0, &every, NULL), 0);
  for (int i = 0; i < 4; i++) Join(t[i]);
  Blocking(timer_fd), Blocking(counter_fd);
  close(timer_fd), close(counter_fd);
}

// Opening a FIFO waits for the other end; a terminal gives lines; a child at the other end.
static char fifo[64];
static void* OpensFifo(void* arg) {
  int fd = open(fifo, O_WRONLY);
  CHECK(fd >= 0 && write(fd, "through", 7) == 7);
  close(fd);
  return arg;
}
static void* ReadsLine(void* arg) {
  char text[100];
  ssize_t n = read(*(int*)arg, text, sizeof text);
  CHECK_MSG(n == 6 && !memcmp(text, "hello\n", 6), "terminal: %zd", n);
  return NULL;
}
static void Files(const char* name) {
  (void)name;
  char text[100];
  snprintf(fifo, sizeof fifo, "/tmp/undergo-fifo-%d", getpid());
  CHECK_EQ(mkfifo(fifo, 0600), 0);
  pthread_t t = Start(OpensFifo, NULL);
  Moment();
  int fd = open(fifo, O_RDONLY);
  unlink(fifo);
  CHECK(fd >= 0 && read(fd, text, 7) == 7 && read(fd, text, 7) == 0);
  close(fd);
  Join(t);
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  if (master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0) {
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0);
    t = Start(ReadsLine, &slave);
    Moment();
    CHECK_EQ(write(master, "hel", 3), 3);
    SleepMs(3);
    CHECK_EQ(write(master, "lo\n", 3), 3);
    Join(t);
    Blocking(slave);
    close(slave), close(master);
  }
  int p[2];
  CHECK_EQ(pipe(p), 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    // The description is shared: what this library does to it the child would see.
    for (int i = 0; i < 20; i++) {
      if (fcntl(p[1], F_GETFL) & O_NONBLOCK) _exit(1);
      if (write(p[1], "tick", 4) != 4) _exit(2);
      usleep(500);
    }
    _exit(0);
  }
  close(p[1]);
  ssize_t n, total = 0;
  while ((n = read(p[0], text, sizeof text)) > 0) total += n;
  CHECK(n == 0 && total == 80);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  close(p[0]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"rings", Rings},
                               {"streams", Streams},
                               {"flags", Flags},
                               {"events", Events},
                               {"files", Files}};
  return RUN_PARTS(parts);
}
