// SPDX-License-Identifier: Apache-2.0
// A load for servers on loopback: one thread, one epoll, each connection sends the next request
// when the answer to the last one is complete. Always run natively.
//   load echo|memcached PORT CONNECTIONS SECONDS
// memcached: a tenth of the requests set a value of 100 bytes, the others get one; every answer is
// checked, and so is every byte that comes back from an echo server.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "schedbench.h"

enum { kMessage = 64, kKeys = 10000, kValue = 100 };
typedef struct Connection {
  int fd;
  uint32_t have, want;
  uint64_t number;
  double sent;
  char expected[256], answer[256];
} Connection;

static int is_memcached;
static Rng rng;
static Histogram latencies;

static void Fail(const char* what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}
static void ValueOf(unsigned key, char* value) {
  for (unsigned i = 0; i < kValue; i++) value[i] = (char)('a' + (key * 31 + i * 7) % 26);
}
static void SetRequest(Connection* c, unsigned key, char* out, int* size) {
  char value[kValue];
  ValueOf(key, value);
  *size = sprintf(out, "set key%u 0 0 %d\r\n%.*s\r\n", key, kValue, kValue, value);
  c->want = (uint32_t)sprintf(c->expected, "STORED\r\n");
}
static void Send(Connection* c) {
  char out[256];
  int size = kMessage;
  const unsigned key = (unsigned)RngBelow(&rng, kKeys);
  if (!is_memcached) {
    Fill(out, kMessage, c->number++);
    memcpy(c->expected, out, kMessage);
    c->want = kMessage;
  } else if (RngBelow(&rng, 10) == 0) {
    SetRequest(c, key, out, &size);
  } else {
    char value[kValue];
    ValueOf(key, value);
    size = sprintf(out, "get key%u\r\n", key);
    c->want = (uint32_t)sprintf(c->expected, "VALUE key%u 0 %d\r\n%.*s\r\nEND\r\n", key, kValue,
                                kValue, value);
  }
  c->have = 0;
  c->sent = NowSeconds();
  if (send(c->fd, out, (size_t)size, MSG_NOSIGNAL) != size) Fail("send");
}
// True when the answer is complete.
static int Receive(Connection* c) {
  const ssize_t n = recv(c->fd, c->answer + c->have, sizeof c->answer - c->have, 0);
  if (n <= 0) Fail(n == 0 ? "the server closed a connection" : "recv");
  c->have += (uint32_t)n;
  if (c->have < c->want) return 0;
  if (c->have != c->want || memcmp(c->answer, c->expected, c->want) != 0) {
    errno = 0;
    Fail("a wrong answer");
  }
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 5) return fputs("load: usage: load KIND PORT CONNECTIONS SECONDS\n", stderr), 2;
  is_memcached = !strcmp(argv[1], "memcached");
  const long count = Argument(argc, argv, 3, 100);
  const double seconds = atof(argv[4]);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  Connection* all = Must(calloc((size_t)count, sizeof *all));
  const int ep = epoll_create1(0);
  rng = RngSeed(5);
  for (long i = 0; i < count; i++) {
    const int on = 1;
    all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(all[i].fd, (struct sockaddr*)&address, sizeof address) != 0) Fail("connect");
    setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {EPOLLIN, {.ptr = &all[i]}};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &e) != 0) Fail("epoll_ctl");
  }
  for (unsigned key = 0; is_memcached && key < kKeys; key++) {
    char out[256];
    int size;
    SetRequest(&all[0], key, out, &size);
    all[0].have = 0;
    if (send(all[0].fd, out, (size_t)size, 0) != size) Fail("send");
    while (!Receive(&all[0])) {
    }
  }
  // The first requests of all are not measured: the server still makes its threads.
  for (long i = 0; i < count; i++) {
    Send(&all[i]);
    while (!Receive(&all[i])) {
    }
  }
  puts("connected");
  fflush(stdout);
  for (long i = 0; i < count; i++) Send(&all[i]);
  const double begin = NowSeconds();
  double now = begin;
  while (now - begin < seconds) {
    struct epoll_event e[256];
    const int n = epoll_wait(ep, e, 256, 1000);
    if (n < 0) Fail("epoll_wait");
    now = NowSeconds();
    for (int i = 0; i < n; i++) {
      Connection* c = e[i].data.ptr;
      if (!Receive(c)) continue;
      Record(&latencies, now - c->sent);
      Send(c);
    }
  }
  Metric("requests_per_s", (double)latencies.total / (now - begin));
  Latencies("latency", &latencies);
  return 0;
}
