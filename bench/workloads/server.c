// SPDX-License-Identifier: Apache-2.0
// A server that hands its objects from one generation of threads to the next: each worker replaces
// random slots of its session table, then starts its successor with the same table and exits.
//   server [chains] [generations] [replacements] [slots]
#include <pthread.h>

#include "bench.h"

typedef struct {
  char* block;
  uint32_t size;
} Slot;

// One chain of workers; owned by exactly one live thread.
typedef struct {
  Rng rng;
  long generations_left;
  uint64_t sum;
  Slot* slots;
} Chain;

static long g_replacements, g_slots;
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t g_done = PTHREAD_COND_INITIALIZER;
static long g_running;

static void Renew(Chain* chain, Slot* slot) {
  if (slot->block != NULL) {
    Expect(EndsAre(slot->block, slot->size, slot->size), "session contents");
    free(slot->block);
  }
  slot->size = (uint32_t)RngBetween(&chain->rng, 10, 1000);
  slot->block = Must(malloc(slot->size));
  Fill(slot->block, slot->size, slot->size);
  chain->sum = Mix(chain->sum, slot->size);
}

static void* Worker(void* argument) {
  Chain* chain = argument;
  for (long i = 0; i < g_replacements; ++i) {
    Renew(chain, &chain->slots[RngBelow(&chain->rng, (uint64_t)g_slots)]);
  }
  if (--chain->generations_left > 0) {
    pthread_t next;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    Expect(pthread_create(&next, &detached, Worker, chain) == 0, "pthread_create");
    pthread_attr_destroy(&detached);
    return NULL;
  }
  pthread_mutex_lock(&g_lock);
  --g_running;
  pthread_cond_signal(&g_done);
  pthread_mutex_unlock(&g_lock);
  return NULL;
}

int main(int argc, char** argv) {
  const long chains = Argument(argc, argv, 1, 4);
  const long generations = Argument(argc, argv, 2, 80);
  g_replacements = Argument(argc, argv, 3, 50000);
  g_slots = Argument(argc, argv, 4, 2000);
  Chain* all = Must(calloc((size_t)chains, sizeof(Chain)));
  g_running = chains;
  for (long i = 0; i < chains; ++i) {
    all[i].rng = RngSeed(500 + (uint64_t)i);
    all[i].generations_left = generations;
    all[i].slots = Must(calloc((size_t)g_slots, sizeof(Slot)));
    // The first tables are filled by the main thread, so every block starts out foreign.
    for (long s = 0; s < g_slots; ++s) Renew(&all[i], &all[i].slots[s]);
  }
  for (long i = 0; i < chains; ++i) {
    pthread_t thread;
    Expect(pthread_create(&thread, NULL, Worker, &all[i]) == 0, "pthread_create");
    pthread_detach(thread);
  }
  pthread_mutex_lock(&g_lock);
  while (g_running > 0) pthread_cond_wait(&g_done, &g_lock);
  pthread_mutex_unlock(&g_lock);
  uint64_t sum = 0;
  for (long i = 0; i < chains; ++i) {
    sum = Mix(sum, all[i].sum);
    for (long s = 0; s < g_slots; ++s) free(all[i].slots[s].block);
    free(all[i].slots);
  }
  free(all);
  return Finish(sum);
}
