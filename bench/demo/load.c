// SPDX-License-Identifier: Apache-2.0
// Load for leaky_server: some connections, a fixed rate of requests, every answer is checked.
//   load PORT SECONDS REQUESTS-PER-SECOND [CONNECTIONS]
// Prints `requests N`, `p50_us`, `p99_us`, `max_us` of the time from request to answer.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../workloads/bench.h"

enum { kMaxConnections = 64, kItems = 60, kMaxSamples = 1 << 20 };

static int port, connections;
static double seconds, rate, began;
static float* sample[kMaxConnections];
static int samples[kMaxConnections];

static void Run(int me) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Expect(fd >= 0 && connect(fd, (struct sockaddr*)&address, sizeof address) == 0, "a connection");
  Rng rng = RngSeed((uint64_t)me + 1);
  for (int number = 0;; number++) {
    const double due = began + (number + (double)me / connections) * connections / rate;
    double now = NowSeconds();
    if (due > began + seconds) break;
    if (due > now) {
      const struct timespec pause = {0, (long)((due - now) * 1e9) % 1000000000};
      nanosleep(&pause, NULL);
    }
    char text[16384], wanted[64], answer[64] = "";
    uint64_t sum = 0;
    int matches = 0, n = 4 + snprintf(text + 4, sizeof text - 4, "<order id=\"%d\">", number);
    for (int i = 0; i < kItems; i++) {
      const uint64_t price = RngBelow(&rng, 10000), name = RngBelow(&rng, 100000);
      sum += price;
      matches += name % 5 == 0;
      n += snprintf(text + n, sizeof text - (size_t)n,
                    "<item price=\"%llu\" name=\"article-%llu\">%d pieces</item>",
                    (unsigned long long)price, (unsigned long long)name, i);
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "</order>");
    const uint32_t size = (uint32_t)n - 4;
    memcpy(text, &size, 4);
    snprintf(wanted, sizeof wanted, "%llu %d\n", (unsigned long long)sum, matches);
    now = NowSeconds();
    Expect(write(fd, text, (size_t)n) == n, "a request goes out");
    ssize_t got = 0;
    while (!memchr(answer, '\n', (size_t)got)) {
      const ssize_t more = read(fd, answer + got, sizeof answer - 1 - (size_t)got);
      Expect(more > 0, "an answer comes");
      got += more;
    }
    Expect(strcmp(answer, wanted) == 0, "the answer is right");
    if (samples[me] < kMaxSamples) sample[me][samples[me]++] = (float)((NowSeconds() - now) * 1e6);
  }
  close(fd);
}
static void* Thread(void* me) {
  Run((int)(intptr_t)me);
  return NULL;
}
static int Compare(const void* a, const void* b) {
  const float x = *(const float*)a, y = *(const float*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  port = (int)Argument(argc, argv, 1, 0);
  seconds = (double)Argument(argc, argv, 2, 6);
  rate = (double)Argument(argc, argv, 3, 1000);
  connections = (int)Argument(argc, argv, 4, 8);
  Expect(connections <= kMaxConnections, "as many connections as there may be");
  pthread_t thread[kMaxConnections];
  began = NowSeconds();
  int total = 0;
  for (int i = 0; i < connections; i++) {
    sample[i] = Must(malloc(kMaxSamples * sizeof(float)));
    Expect(pthread_create(&thread[i], NULL, Thread, (void*)(intptr_t)i) == 0, "a thread");
  }
  for (int i = 0; i < connections; i++) {
    pthread_join(thread[i], NULL);
    total += samples[i];
  }
  float* all = Must(malloc((size_t)total * sizeof *all));
  for (int i = 0, at = 0; i < connections; at += samples[i++])
    memcpy(all + at, sample[i], (size_t)samples[i] * sizeof *all);
  qsort(all, (size_t)total, sizeof *all, Compare);
  printf("requests %d\np50_us %.0f\np99_us %.0f\nmax_us %.0f\n", total, (double)all[total / 2],
         (double)all[(size_t)total * 99 / 100], (double)all[total - 1]);
  return 0;
}
