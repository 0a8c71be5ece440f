// SPDX-License-Identifier: Apache-2.0
// Random lifetimes: every object gets a size and a time of death when it is born; a wheel of
// buckets frees what is due. Most objects die young, few live long. Threads share nothing.
//   lifetime [threads] [births per thread] [log2 of the longest life]
#include <pthread.h>

#include "bench.h"

typedef struct Object {
  struct Object* next;
  uint32_t size;
} Object;

static long g_births;
static unsigned g_life_bits;

static void* Live(void* argument) {
  Rng rng = RngSeed((uint64_t)(uintptr_t)argument);
  const uint64_t wheel_size = (uint64_t)1 << g_life_bits;
  Object** wheel = Must(calloc(wheel_size, sizeof(Object*)));
  uint64_t sum = 0;
  for (uint64_t now = 0; now < (uint64_t)g_births + wheel_size; ++now) {
    Object* due = wheel[now & (wheel_size - 1)];
    wheel[now & (wheel_size - 1)] = NULL;
    while (due != NULL) {
      Object* next = due->next;
      sum += due->size;
      free(due);
      due = next;
    }
    if (now >= (uint64_t)g_births) continue;
    const uint64_t life = RngSkewed(&rng, 0, g_life_bits);
    const uint32_t size = (uint32_t)RngSkewed(&rng, 4, RngBelow(&rng, 8) == 0 ? 11 : 8);
    Object* born = Must(malloc(size));
    Fill(born, size, size);
    born->size = size;
    Object** bucket = &wheel[(now + life) & (wheel_size - 1)];
    born->next = *bucket;
    *bucket = born;
  }
  free(wheel);
  return (void*)(uintptr_t)sum;
}

int main(int argc, char** argv) {
  const long threads = Argument(argc, argv, 1, 1);
  g_births = Argument(argc, argv, 2, 12000000);
  g_life_bits = (unsigned)Argument(argc, argv, 3, 14);
  Expect(threads > 0 && threads <= 64, "thread count");
  pthread_t crew[64];
  uint64_t sum = 0;
  for (long t = 1; t < threads; ++t) {
    Expect(pthread_create(&crew[t], NULL, Live, (void*)(uintptr_t)(1300 + t)) == 0, "create");
  }
  sum += (uint64_t)(uintptr_t)Live((void*)(uintptr_t)1300);
  for (long t = 1; t < threads; ++t) {
    void* part;
    pthread_join(crew[t], &part);
    sum += (uint64_t)(uintptr_t)part;
  }
  return Finish(sum);
}
