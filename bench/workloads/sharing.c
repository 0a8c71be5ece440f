// SPDX-License-Identifier: Apache-2.0
// False-sharing probe. "active": threads allocate small objects themselves and write them many
// times. "passive": they first free objects that the main thread allocated side by side, so an
// allocator that reuses them at once spreads one cache line over several threads.
//   sharing active|passive [threads] [objects] [writes per object] [size]
#include <pthread.h>

#include "bench.h"

static long g_objects, g_writes, g_size;
static pthread_barrier_t g_barrier;

static void* Worker(void* inherited) {
  pthread_barrier_wait(&g_barrier);
  free(inherited);
  uint64_t sum = 0;
  for (long i = 0; i < g_objects; ++i) {
    volatile unsigned char* object = Must(malloc((size_t)g_size));
    for (long k = 0; k < g_size; ++k) object[k] = (unsigned char)i;
    for (long w = 0; w < g_writes; ++w) {
      object[0] = (unsigned char)(object[0] + 1);
      object[g_size - 1] = (unsigned char)(object[g_size - 1] + w);
    }
    sum += object[0] + object[g_size - 1];
    free((void*)object);
  }
  return (void*)(uintptr_t)sum;
}

int main(int argc, char** argv) {
  const int passive = argc > 1 && strcmp(argv[1], "passive") == 0;
  const long threads = Argument(argc, argv, 2, 2);
  g_objects = Argument(argc, argv, 3, 2000);
  g_writes = Argument(argc, argv, 4, 100000);
  g_size = Argument(argc, argv, 5, 8);
  Expect(threads > 0 && threads <= 64 && g_size > 0, "arguments");
  pthread_barrier_init(&g_barrier, NULL, (unsigned)threads);
  pthread_t crew[64];
  void* gift[64] = {0};
  for (long t = 0; t < threads && passive; ++t) {
    gift[t] = Must(malloc((size_t)g_size));
    Fill(gift[t], (size_t)g_size, 1);
  }
  uint64_t sum = 0;
  for (long t = 0; t < threads; ++t) {
    Expect(pthread_create(&crew[t], NULL, Worker, gift[t]) == 0, "pthread_create");
  }
  for (long t = 0; t < threads; ++t) {
    void* part;
    pthread_join(crew[t], &part);
    sum += (uint64_t)(uintptr_t)part;
  }
  return Finish(sum);
}
