// SPDX-License-Identifier: Apache-2.0
// A pool of threads takes small tasks from one queue and reports each result.
//   pool THREADS TASKS
#include "schedbench.h"

enum { kRoom = 1024 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static uint64_t queue[kRoom], sum;
static unsigned long head, tail;
static int closed;

static uint64_t Work(uint64_t seed) {
  Rng rng = RngSeed(seed);
  uint64_t x = 0;
  for (int i = 0; i < 1000; i++) x ^= RngNext(&rng);
  return x;
}
static void* Worker(void* arg) {
  uint64_t own = 0;
  for (;;) {
    pthread_mutex_lock(&mutex);
    while (head == tail && !closed) pthread_cond_wait(&not_empty, &mutex);
    if (head == tail) break;
    const uint64_t task = queue[head++ % kRoom];
    pthread_cond_signal(&not_full);
    pthread_mutex_unlock(&mutex);
    own += Work(task);
  }
  sum += own;
  pthread_mutex_unlock(&mutex);
  return arg;
}

int main(int argc, char** argv) {
  const long threads = Argument(argc, argv, 1, 1000), tasks = Argument(argc, argv, 2, 100000);
  pthread_t* t = Must(calloc((size_t)threads, sizeof *t));
  const double begin = NowSeconds();
  for (long i = 0; i < threads; i++) t[i] = Start(Worker, NULL);
  for (long i = 0; i < tasks; i++) {
    pthread_mutex_lock(&mutex);
    while (tail - head == kRoom) pthread_cond_wait(&not_full, &mutex);
    queue[tail++ % kRoom] = (uint64_t)i;
    pthread_cond_signal(&not_empty);
    pthread_mutex_unlock(&mutex);
  }
  pthread_mutex_lock(&mutex);
  closed = 1;
  pthread_cond_broadcast(&not_empty);
  pthread_mutex_unlock(&mutex);
  for (long i = 0; i < threads; i++) Join(t[i]);
  Metric("s", NowSeconds() - begin);
  free(t);
  return Finish(sum);
}
