// SPDX-License-Identifier: Apache-2.0
// Asymmetric producers and consumers: some threads only allocate, others only free. Blocks travel
// in batches through one bounded queue.
//   pipeline [producers] [consumers] [batches per producer] [batch size]
#include <pthread.h>

#include "bench.h"

enum { kQueueBatches = 32 };

static long g_batch_size, g_batches;
static void** g_queue[kQueueBatches];
static long g_queued, g_expected;  // batches waiting; batches still to come
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t g_not_full = PTHREAD_COND_INITIALIZER;
static pthread_cond_t g_not_empty = PTHREAD_COND_INITIALIZER;
static uint64_t g_freed_sum;

static const uint16_t kSizes[8] = {16, 24, 32, 48, 64, 96, 144, 400};

static void* Produce(void* argument) {
  Rng rng = RngSeed((uint64_t)(uintptr_t)argument);
  for (long b = 0; b < g_batches; ++b) {
    void** batch = Must(malloc((size_t)g_batch_size * sizeof(void*)));
    for (long i = 0; i < g_batch_size; ++i) {
      const uint16_t size = kSizes[RngBelow(&rng, 8)];
      batch[i] = Must(malloc(size));
      Fill(batch[i], size, size);
      memcpy(batch[i], &size, sizeof(size));
    }
    pthread_mutex_lock(&g_lock);
    while (g_queued == kQueueBatches) pthread_cond_wait(&g_not_full, &g_lock);
    g_queue[g_queued++] = batch;
    pthread_cond_signal(&g_not_empty);
    pthread_mutex_unlock(&g_lock);
  }
  return NULL;
}

static void* Consume(void* unused) {
  uint64_t sum = 0;
  for (;;) {
    pthread_mutex_lock(&g_lock);
    while (g_queued == 0 && g_expected > 0) pthread_cond_wait(&g_not_empty, &g_lock);
    if (g_queued == 0) break;
    void** batch = g_queue[--g_queued];
    if (--g_expected == 0) pthread_cond_broadcast(&g_not_empty);
    pthread_cond_signal(&g_not_full);
    pthread_mutex_unlock(&g_lock);
    for (long i = 0; i < g_batch_size; ++i) {
      uint16_t size;
      memcpy(&size, batch[i], sizeof(size));
      Expect(((unsigned char*)batch[i])[size - 1] == (size & 0xff), "message contents");
      sum += size;
      free(batch[i]);
    }
    free(batch);
  }
  g_freed_sum += sum;
  pthread_mutex_unlock(&g_lock);
  return unused;
}

int main(int argc, char** argv) {
  const long producers = Argument(argc, argv, 1, 2);
  const long consumers = Argument(argc, argv, 2, 2);
  g_batches = Argument(argc, argv, 3, 6000);
  g_batch_size = Argument(argc, argv, 4, 1000);
  Expect(producers > 0 && consumers > 0 && producers + consumers <= 64, "thread counts");
  g_expected = producers * g_batches;
  pthread_t threads[64];
  for (long i = 0; i < producers; ++i) {
    Expect(pthread_create(&threads[i], NULL, Produce, (void*)(uintptr_t)(600 + i)) == 0, "create");
  }
  for (long i = producers; i < producers + consumers; ++i) {
    Expect(pthread_create(&threads[i], NULL, Consume, NULL) == 0, "create");
  }
  for (long i = 0; i < producers + consumers; ++i) pthread_join(threads[i], NULL);
  return Finish(g_freed_sum);
}
