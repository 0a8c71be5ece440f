// SPDX-License-Identifier: Apache-2.0
// Many threads at once, with stacks of 64 KiB.
//   many sleep COUNT MILLISECONDS     all sleep so long, from start to the last join
//   many park COUNT                   all wait for a semaphore; what they cost meanwhile
// A refusal by the system (EAGAIN) ends the making, is told as `live`, and is no error.
#include "schedbench.h"

static long milliseconds;
static sem_t gate, ready;

static void* Sleeps(void* arg) {
  struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
  return arg;
}
static void* Parks(void* arg) {
  sem_post(&ready);
  while (sem_wait(&gate) != 0) {
  }
  return arg;
}
static long Make(pthread_t* t, long wanted, Body body) {
  pthread_attr_t attr = SmallStacks();
  for (long i = 0; i < wanted; i++) {
    const int error = pthread_create(&t[i], &attr, body, NULL);
    if (error == EAGAIN) return i;
    Try(error, "pthread_create");
  }
  return wanted;
}
// Free memory falls and rises by what other processes do, too; the accounts of this process are
// exact but miss what the kernel keeps beside a thread's stack.
typedef struct Memory {
  long rss_kb, tables_kb, threads, available_kb;
} Memory;
static Memory Look(void) {
  Memory m = {ProcField("/proc/self/status", "VmRSS"), ProcField("/proc/self/status", "VmPTE"),
              ProcField("/proc/self/status", "Threads"),
              ProcField("/proc/meminfo", "MemAvailable")};
  return m;
}

int main(int argc, char** argv) {
  const int sleep_kind = argc > 1 && !strcmp(argv[1], "sleep");
  const long wanted = Argument(argc, argv, 2, 10000);
  milliseconds = Argument(argc, argv, 3, 1000);
  sem_init(&gate, 0, 0), sem_init(&ready, 0, 0);
  pthread_t* t = Must(malloc((size_t)wanted * sizeof *t));
  memset(t, 0, (size_t)wanted * sizeof *t);
  Join(Start(Parks, (sem_post(&gate), NULL)));
  sem_wait(&ready);
  const Memory before = Look();
  const double begin = NowSeconds();
  const long live = Make(t, wanted, sleep_kind ? Sleeps : Parks);
  const double made = NowSeconds();
  Metric("create_s", made - begin);
  Metric("live", (double)live);
  if (!sleep_kind) {
    for (long i = 0; i < live; i++) sem_wait(&ready);
    usleep(200000);
    const Memory now = Look();
    const double each = (double)(live ? live : 1);
    Metric("kernel_threads", (double)now.threads);
    Metric("rss_kib", (double)(now.rss_kb - before.rss_kb) / each);
    Metric("accounted_kib", (double)(now.rss_kb - before.rss_kb + now.tables_kb - before.tables_kb +
                                     16 * (now.threads - before.threads)) /
                                each);
    Metric("available_kib", (double)(before.available_kb - now.available_kb) / each);
  }
  const double wake = NowSeconds();
  for (long i = 0; i < live && !sleep_kind; i++) sem_post(&gate);
  for (long i = 0; i < live; i++) Join(t[i]);
  Metric("join_s", NowSeconds() - wake);
  Metric("total_s", NowSeconds() - begin);
  free(t);
  return 0;
}
