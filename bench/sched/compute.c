// SPDX-License-Identifier: Apache-2.0
// One thread for each processor computes and never waits.
//   compute ROUNDS
#include "schedbench.h"

enum { kCells = 4096 };
static long rounds;
static void* Computes(void* arg) {
  uint64_t cells[kCells];
  Rng rng = RngSeed((uint64_t)(uintptr_t)arg);
  for (int i = 0; i < kCells; i++) cells[i] = RngNext(&rng);
  for (long r = 0; r < rounds; r++)
    for (int i = 0; i < kCells; i++) cells[i] = Mix(cells[i], cells[(i + 1) % kCells]);
  uint64_t sum = 0;
  for (int i = 0; i < kCells; i++) sum = Mix(sum, cells[i]);
  return (void*)(uintptr_t)sum;
}

int main(int argc, char** argv) {
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  rounds = Argument(argc, argv, 1, 100000);
  pthread_t* t = Must(calloc((size_t)cpus, sizeof *t));
  uint64_t sum = 0;
  const double begin = NowSeconds();
  for (long i = 0; i < cpus; i++) t[i] = Start(Computes, (void*)(i + 1));
  for (long i = 0; i < cpus; i++) {
    void* part;
    Try(pthread_join(t[i], &part), "pthread_join");
    sum ^= (uintptr_t)part;
  }
  Metric("s", NowSeconds() - begin);
  free(t);
  return Finish(sum);
}
