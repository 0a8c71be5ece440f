// SPDX-License-Identifier: Apache-2.0
// Eight threads as a server's: each request parses into small objects, looks up and replaces
// entries of a shared table, builds an answer. Nine requests of ten free all that they made; one
// forgets half of it. Replaced entries are never freed.
//   server [requests of each thread] [threads]
#include "gcbench.h"

enum { kShards = 64, kPerShard = 2048, kMaxThreads = 64, kFields = 12 };

typedef struct Entry {
  uint64_t key;
  size_t size;
  char* text;
} Entry;
typedef struct Shard {
  pthread_mutex_t lock;
  Entry* entry[kPerShard];
} Shard;
static Shard* shards;
static long requests;
static Histogram latency[kMaxThreads];
static uint64_t sums[kMaxThreads];

static Entry* NewEntry(uint64_t key) {
  Entry* entry = Allocate(sizeof *entry);
  entry->key = key;
  entry->size = 40 + key % 400;
  entry->text = Allocate(entry->size);
  Fill(entry->text, entry->size, key);
  return entry;
}

static NOINLINE uint64_t Request(Rng* rng, long number) {
  char* field[kFields];
  size_t size[kFields];
  uint64_t sum = 0;
  for (int i = 0; i < kFields; i++) {
    size[i] = RngSkewed(rng, 4, 10);
    field[i] = Allocate(size[i]);
    Fill(field[i], size[i], (uint64_t)i);
  }
  for (int i = 0; i < 3; i++) {
    const uint64_t key = RngBelow(rng, kShards * kPerShard);
    Shard* shard = &shards[key % kShards];
    Entry* fresh = i == 0 ? NewEntry(key) : NULL;
    pthread_mutex_lock(&shard->lock);
    Entry** place = &shard->entry[key / kShards];
    Expect((*place)->key == key && EndsAre((*place)->text, (*place)->size, key), "an entry");
    sum += (*place)->size;
    if (fresh) *place = fresh;
    pthread_mutex_unlock(&shard->lock);
  }
  char* answer = Allocate(4000);
  Fill(answer, 4000, sum);
  for (int i = 0; i < kFields; i++) {
    Expect(EndsAre(field[i], size[i], (uint64_t)i), "a field");
    if (number % 10 != 0 || i % 2) Free(field[i]);
  }
  if (number % 10 != 0) Free(answer);
  return sum;
}

static void* Worker(void* number) {
  const size_t me = (size_t)number;
  Rng rng = RngSeed(me + 5);
  double then = NowSeconds();
  for (long i = 0; i < requests; i++) {
    sums[me] += Request(&rng, i);
    const double now = NowSeconds();
    Record(&latency[me], now - then);
    then = now;
  }
  return NULL;
}

int main(int argc, char** argv) {
  Start();
  requests = Argument(argc, argv, 1, 250000);
  const size_t threads = (size_t)Argument(argc, argv, 2, 8);
  Expect(threads <= kMaxThreads, "as many threads as there may be");
  shards = Allocate(kShards * sizeof *shards);
  for (uint64_t s = 0; s < kShards; s++) {
    pthread_mutex_init(&shards[s].lock, NULL);
    for (uint64_t e = 0; e < kPerShard; e++) shards[s].entry[e] = NewEntry(e * kShards + s);
  }
  pthread_t thread[kMaxThreads];
  const double start = NowSeconds();
  for (size_t i = 0; i < threads; i++)
    Expect(pthread_create(&thread[i], NULL, Worker, (void*)i) == 0, "a thread");
  for (size_t i = 0; i < threads; i++) pthread_join(thread[i], NULL);
  Metric("requests_per_s", (double)requests * (double)threads / (NowSeconds() - start));
  uint64_t sum = 0;
  for (size_t i = 0; i < threads; i++) {
    sum = Mix(sum, sums[i]);
    if (i > 0) Merge(&latency[0], &latency[i]);
  }
  Latencies("request", &latency[0]);
  End();
  return Finish(sum);
}
