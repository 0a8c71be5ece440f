// SPDX-License-Identifier: Apache-2.0
// Many short-lived threads: each allocates a few hundred objects, frees half itself and leaves the
// other half to the main thread, which frees it when a window of threads has gone by.
//   threads [threads] [objects per thread] [alive at a time]
#include <pthread.h>

#include "bench.h"

static long g_objects;

typedef struct {
  uint64_t seed;
  uint64_t sum;
  void** left;
} Job;

static void* Worker(void* argument) {
  Job* job = argument;
  Rng rng = RngSeed(job->seed);
  void** mine = Must(malloc((size_t)g_objects * sizeof(void*)));
  for (long i = 0; i < g_objects; ++i) {
    const size_t size = RngSkewed(&rng, 4, 10);
    mine[i] = Must(malloc(size));
    Fill(mine[i], size, size);
    job->sum += size;
  }
  for (long i = 0; i < g_objects; i += 2) {
    free(mine[i]);
    mine[i] = NULL;
  }
  job->left = mine;
  return NULL;
}

int main(int argc, char** argv) {
  const long threads = Argument(argc, argv, 1, 12000);
  g_objects = Argument(argc, argv, 2, 400);
  const long window = Argument(argc, argv, 3, 8);
  Expect(window > 0 && window <= 256, "window");
  static pthread_t crew[256];
  static Job jobs[256];
  uint64_t sum = 0;
  for (long t = 0; t < threads + window; ++t) {
    Job* job = &jobs[t % window];
    if (t >= window) {
      pthread_join(crew[t % window], NULL);
      for (long i = 0; i < g_objects; ++i) free(job->left[i]);
      free(job->left);
      sum = Mix(sum, job->sum);
    }
    if (t >= threads) continue;
    memset(job, 0, sizeof(*job));
    job->seed = 2000 + (uint64_t)t;
    Expect(pthread_create(&crew[t % window], NULL, Worker, job) == 0, "pthread_create");
  }
  return Finish(sum);
}
