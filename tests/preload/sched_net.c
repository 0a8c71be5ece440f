// SPDX-License-Identifier: Apache-2.0
// A thread for each connection over loopback: accept, connect, send and receive in all their forms,
// refused and interrupted connections, shutdown from another thread, datagrams, descriptors passed.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "pthreads.h"

#define FAILS(call, error) CHECK_MSG((call) == -1 && errno == (error), "%s: %d", #call, errno)

static int listener;
static struct sockaddr_in address;
static atomic_int served, entered;

static void Listen(void) {
  socklen_t size = sizeof address;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  address = (struct sockaddr_in){.sin_family = AF_INET};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(listener >= 0 && bind(listener, (struct sockaddr*)&address, size) == 0);
  CHECK(listen(listener, 300) == 0);
  CHECK(getsockname(listener, (struct sockaddr*)&address, &size) == 0);
}
static int Connect(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  int r = connect(fd, (struct sockaddr*)&address, sizeof address);
  CHECK_MSG(r == 0, "connect: %s", strerror(errno));
  return fd;
}

static void* Serves(void* arg) {
  const int fd = (int)(intptr_t)arg;
  char text[4096];
  for (;;) {
    ssize_t n = served % 2 ? recv(fd, text, sizeof text, 0) : read(fd, text, sizeof text);
    CHECK_MSG(n >= 0, "server: %s", strerror(errno));
    if (n == 0) break;
    CHECK_EQ(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
  }
  CHECK(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
  close(fd);
  atomic_fetch_add(&served, 1);
  return NULL;
}
static void* Accepts(void* arg) {
  for (intptr_t i = 0; i < (intptr_t)arg; i++) {
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    int fd = i % 2 ? accept(listener, (struct sockaddr*)&from, &size)
                   : accept4(listener, (struct sockaddr*)&from, &size, SOCK_CLOEXEC);
    CHECK_MSG(fd >= 0, "accept: %s", strerror(errno));
    CHECK(size == sizeof from && from.sin_family == AF_INET);
    CHECK_EQ(fcntl(fd, F_GETFD), i % 2 ? 0 : FD_CLOEXEC);
    pthread_t t = Start(Serves, (void*)(intptr_t)fd);
    pthread_detach(t);
  }
  return NULL;
}
enum { kClients = 100, kMessages = 20 };
static void* Client(void* arg) {
  int fd = Connect();
  char out[600], in[600];
  for (int i = 0; i < kMessages; i++) {
    size_t n = 1 + ((size_t)(intptr_t)arg * 7 + (size_t)i * 29) % sizeof out;
    Fill(out, n, (uint64_t)(intptr_t)arg);
    struct iovec v = {out, n};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK_EQ(i % 2 ? sendmsg(fd, &m, 0) : write(fd, out, n), n);
    CHECK_EQ(recv(fd, in, n, MSG_WAITALL), n);
    CHECK(!memcmp(in, out, n));
  }
  CHECK_EQ(shutdown(fd, SHUT_WR), 0);
  CHECK_EQ(read(fd, in, 1), 0);
  close(fd);
  return NULL;
}
static void Echo(const char* name) {
  (void)name;
  Listen();
  pthread_t acceptor[2], t[kClients];
  for (int i = 0; i < 2; i++) acceptor[i] = Start(Accepts, (void*)(kClients / 2));
  for (intptr_t i = 0; i < kClients; i++) t[i] = Start(Client, (void*)i);
  for (int i = 0; i < kClients; i++) Join(t[i]);
  for (int i = 0; i < 2; i++) Join(acceptor[i]);
  EVENTUALLY(served == kClients);
  CHECK(!(fcntl(listener, F_GETFL) & O_NONBLOCK));
}

static void* AcceptsOne(void* arg) {
  (void)arg;
  entered = 1;
  int fd = accept(listener, NULL, NULL);
  return (void*)(intptr_t)(fd >= 0 ? (close(fd), 0) : errno);
}
static void* ReceivesOne(void* arg) {
  char c;
  entered = 1;
  return (void*)(intptr_t)recv(*(int*)arg, &c, 1, 0);
}
static void Ends(const char* name) {
  (void)name;
  if (listener == 0) Listen();
  // A timeout of accept; a shutdown wakes accept and recv of other threads.
  struct timeval v = {0, 30000}, none = {0, 0};
  struct timespec when = In(CLOCK_MONOTONIC, 30);
  CHECK_EQ(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &v, sizeof v), 0);
  FAILS(accept(listener, NULL, NULL), EAGAIN);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  CHECK_EQ(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none), 0);
  int fd = Connect(), other = accept(listener, NULL, NULL);
  CHECK(other >= 0);
  entered = 0;
  pthread_t t = Start(ReceivesOne, &fd);
  EVENTUALLY(entered == 1);
  Moment();
  CHECK_EQ(shutdown(fd, SHUT_RD), 0);
  CHECK(Join(t) == 0);
  // A reset is an error of the one who reads.
  entered = 0;
  t = Start(ReceivesOne, &other);
  EVENTUALLY(entered == 1);
  struct linger now = {1, 0};
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  close(fd);
  CHECK((intptr_t)Join(t) == -1);
  close(other);
  entered = 0;
  t = Start(AcceptsOne, NULL);
  EVENTUALLY(entered == 1);
  Moment();
  CHECK_EQ(shutdown(listener, SHUT_RDWR), 0);
  CHECK_EQ((intptr_t)Join(t), EINVAL);
  close(listener);
  // Nobody listens there now.
  fd = socket(AF_INET, SOCK_STREAM, 0);
  FAILS(connect(fd, (struct sockaddr*)&address, sizeof address), ECONNREFUSED);
  close(fd);
  // Non-blocking connect stays what it is.
  Listen();
  fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  int r = connect(fd, (struct sockaddr*)&address, sizeof address);
  CHECK(r == 0 || errno == EINPROGRESS);
  CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
  char c;
  FAILS(recv(fd, &c, 1, 0), EAGAIN);
  close(fd), close(listener);
}

static int udp[2];
static void* Answers(void* arg) {
  for (int i = 0; i < 200; i++) {
    char text[100];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    ssize_t n = recvfrom(udp[0], text, sizeof text, 0, (struct sockaddr*)&from, &size);
    CHECK(n > 0);
    CHECK_EQ(sendto(udp[0], text, (size_t)n, 0, (struct sockaddr*)&from, size), n);
  }
  return arg;
}
static void Datagrams(const char* name) {
  (void)name;
  struct sockaddr_in to = {.sin_family = AF_INET};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof to;
  for (int i = 0; i < 2; i++) CHECK((udp[i] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
  CHECK(bind(udp[0], (struct sockaddr*)&to, size) == 0);
  CHECK(getsockname(udp[0], (struct sockaddr*)&to, &size) == 0);
  CHECK(connect(udp[1], (struct sockaddr*)&to, size) == 0);
  pthread_t t = Start(Answers, NULL);
  for (int i = 0; i < 100; i++) {
    char one[60] = "one", two[60] = "two", in[2][60];
    struct iovec v[4] = {{one, 60}, {two, 10}, {in[0], 60}, {in[1], 60}};
    struct mmsghdr out[2] = {0}, got[2] = {0};
    for (int k = 0; k < 2; k++) {
      out[k].msg_hdr.msg_iov = &v[k], out[k].msg_hdr.msg_iovlen = 1;
      got[k].msg_hdr.msg_iov = &v[2 + k], got[k].msg_hdr.msg_iovlen = 1;
    }
    CHECK_EQ(sendmmsg(udp[1], out, 2, 0), 2);
    CHECK_EQ(recvmmsg(udp[1], got, 2, 0, NULL), 2);
    CHECK(got[0].msg_len == 60 && got[1].msg_len == 10 && !strcmp(in[1], "two"));
  }
  Join(t);
  close(udp[0]), close(udp[1]);
}

// A file through sendfile and splice into a socket that another thread reads.
enum { kFile = 3 << 20 };
static void* ReadsFile(void* arg) {
  const int fd = *(int*)arg;
  char* p = malloc(kFile);
  for (int round = 0; round < 2; round++) {
    CHECK_EQ(recv(fd, p, kFile, MSG_WAITALL), kFile);
    CHECK_EQ(Verify(p, kFile, 9), kFile);
  }
  free(p);
  return NULL;
}
static void SendFile(const char* name) {
  int s[2], p[2], file = memfd_create(name, 0);
  CHECK(file >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0 && pipe(p) == 0);
  char* data = malloc(kFile);
  Fill(data, kFile, 9);
  CHECK_EQ(write(file, data, kFile), kFile);
  free(data);
  pthread_t t = Start(ReadsFile, &s[1]);
  off_t at = 0;
  while (at < kFile) CHECK(sendfile(s[0], file, &at, (size_t)(kFile - at)) > 0);
  for (off_t from = 0; from < kFile;) {
    ssize_t n = splice(file, &from, p[1], NULL, 65536, 0);
    CHECK(n > 0);
    while (n > 0) {
      ssize_t m = splice(p[0], NULL, s[0], NULL, (size_t)n, 0);
      CHECK(m > 0);
      n -= m;
    }
  }
  Join(t);
  close(s[0]), close(s[1]), close(p[0]), close(p[1]), close(file);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"echo", Echo}, {"ends", Ends}, {"datagrams", Datagrams}, {"send_file", SendFile}};
  return RUN_PARTS(parts);
}
