// SPDX-License-Identifier: Apache-2.0
// Descriptors that are closed, replaced and duplicated while other threads use them: numbers are
// used again at once, and a new file under an old number must not inherit anything.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "pthreads.h"

static atomic_int entered, done;

// A waiter on a number that is closed: natively it goes on waiting for the description. What
// happens to the waiter may differ; it must end when the other side closes, and never read from
// the file that has the number now.
static int fds[2];
static void* Reads(void* arg) {
  char c;
  entered++;
  ssize_t n = read(*(int*)arg, &c, 1);
  done++;
  return (void*)(intptr_t)n;
}
static void InUse(const char* name) {
  (void)name;
  for (int i = 0; i < 30; i++) {
    entered = done = 0;
    CHECK_EQ(i % 2 ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    int number = fds[0];
    pthread_t t = Start(Reads, &number);
    EVENTUALLY(entered == 1);
    SleepMs(1 + i % 5);  // so that it is in the call
    CHECK_EQ(close(fds[0]), 0);
    // The same number again, for something else that has data.
    int other[2];
    CHECK_EQ(pipe(other), 0);
    CHECK_EQ(other[0], number);
    CHECK_EQ(write(other[1], "x", 1), 1);
    close(fds[1]);
    char c;
    CHECK_MSG((intptr_t)Join(t) <= 0, "a reader took what was meant for another file");
    CHECK(read(other[0], &c, 1) == 1 && c == 'x');
    close(other[0]), close(other[1]);
  }
}

// Each round makes, uses, closes; numbers wander between threads all the time.
static void* Recycles(void* arg) {
  unsigned me = (unsigned)(uintptr_t)arg;
  for (unsigned i = 0; i < 300; i++) {
    int p[2];
    unsigned char in[2], out[2] = {(unsigned char)me, (unsigned char)i};
    switch ((i + me) % 4) {
      case 0: CHECK_EQ(pipe(p), 0); break;
      case 1: CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0); break;
      case 2: CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, p), 0); break;
      case 3:
        p[0] = p[1] = eventfd(0, 0);
        CHECK(p[0] >= 0);
        eventfd_t v;
        CHECK(eventfd_write(p[0], i + 1) == 0 && eventfd_read(p[0], &v) == 0 && v == i + 1);
        close(p[0]);
        continue;
    }
    if (i % 3 == 0) {
      struct pollfd look = {p[0], POLLIN, 0};
      CHECK_EQ(poll(&look, 1, 0), 0);
    }
    CHECK_EQ(write(p[1], out, 2), 2);
    CHECK_EQ(read(p[0], in, 2), 2);
    CHECK(in[0] == out[0] && in[1] == out[1]);
    close(p[0]), close(p[1]);
  }
  return NULL;
}
static void Numbers(const char* name) {
  (void)name;
  pthread_t t[8];
  for (intptr_t i = 0; i < 8; i++) t[i] = Start(Recycles, (void*)i);
  for (int i = 0; i < 8; i++) Join(t[i]);
}

// A pair of pipes; one thread waits on a duplicate while the first number goes away.
static void* WaitsOn(void* arg) {
  int* f = arg;
  for (int i = 0; i < 50; i++) {
    char c;
    CHECK_EQ(read(f[0], &c, 1), 1);
    CHECK_EQ(write(f[1], &c, 1), 1);
  }
  return NULL;
}
static void Duplicates(const char* name) {
  (void)name;
  int there[2], back[2];
  CHECK(pipe(there) == 0 && pipe(back) == 0);
  int f[2] = {there[0], back[1]};
  pthread_t t = Start(WaitsOn, f);
  for (int i = 0; i < 50; i++) {
    char c = (char)i;
    int d = i % 2 ? dup(there[1]) : fcntl(there[1], F_DUPFD_CLOEXEC, 50);
    CHECK(d >= 0 && write(d, &c, 1) == 1);
    // The reader's description lives on under another number.
    int r = dup3(back[0], 200, O_CLOEXEC);
    CHECK_EQ(r, 200);
    CHECK_EQ(read(r, &c, 1), 1);
    CHECK_EQ(c, (char)i);
    close(d), close(r);
  }
  Join(t);
  // dup2 over a number in use replaces it in one step.
  int other[2];
  CHECK_EQ(pipe(other), 0);
  CHECK_EQ(write(other[1], "new", 3), 3);
  CHECK_EQ(dup2(other[0], there[0]), there[0]);
  char text[4];
  CHECK_EQ(read(there[0], text, 3), 3);
  struct pollfd p = {there[0], POLLIN, 0};
  CHECK_EQ(poll(&p, 1, 0), 0);
  CHECK_EQ(write(other[1], "y", 1), 1);
  CHECK(poll(&p, 1, -1) == 1 && p.revents == POLLIN);
  close(there[1]), close(there[0]), close(back[0]), close(back[1]);
}

// close_range and closing all numbers, as daemons do: what is the library's own must survive.
static void* EchoesOnce(void* arg) {
  char c;
  int* f = arg;
  CHECK_EQ(read(f[0], &c, 1), 1);
  CHECK_EQ(write(f[1], &c, 1), 1);
  return NULL;
}
static void Ranges(const char* name) {
  (void)name;
  for (int how = 0; how < 2; how++) {
    if (how == 0)
      close_range(3, ~0u, 0);
    else
      for (int fd = 3; fd < 1024; fd++) close(fd);
    int a[2], b[2];
    CHECK(pipe(a) == 0 && pipe(b) == 0);
    CHECK_MSG(a[0] == 3 && a[1] == 4, "%d and %d are not the lowest numbers", a[0], a[1]);
    int f[2] = {a[0], b[1]};
    pthread_t t = Start(EchoesOnce, f);
    Moment();
    char c = 'r';
    CHECK(write(a[1], &c, 1) == 1 && read(b[0], &c, 1) == 1 && c == 'r');
    Join(t);
    SleepMs(5);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
  }
}

// Made, changed and closed before the first thread. First of all parts.
static void* Nothing(void* arg) { return arg; }
static void Early(const char* name) {
  (void)name;
  int listener = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0), ends[2];
  CHECK_EQ(listen(listener, 5), 0);
  CHECK_EQ(listen(other, 5), 0);
  CHECK_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
  int on = 1;
  CHECK_EQ(ioctl(other, FIONBIO, &on), 0);
  int again = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(close(again), 0);
  int file = open("/proc/self/exe", O_RDONLY);
  CHECK_EQ(file, again);
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(dup2(file, ends[0]), ends[0]);
  Join(Start(Nothing, NULL));
  CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
  CHECK(accept(other, NULL, NULL) == -1 && errno == EAGAIN);
  char magic[4];
  CHECK(pread(file, magic, 4, 0) == 4 && read(ends[0], magic, 4) == 4 && magic[1] == 'E');
  CHECK(recv(file, magic, 4, 0) == -1 && errno == ENOTSOCK);
  close(listener), close(other), close(file), close(ends[0]), close(ends[1]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"early", Early},
                               {"in_use", InUse},
                               {"numbers", Numbers},
                               {"duplicates", Duplicates},
                               {"ranges", Ranges}};
  return RUN_PARTS(parts);
}
