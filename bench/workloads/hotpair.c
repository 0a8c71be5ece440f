// SPDX-License-Identifier: Apache-2.0
// The cheapest case of all, malloc and free of one size in a tight loop through the PLT. Prints
// the best of several stretches in nanoseconds for a pair; time is the thread's CPU time.
//   hotpair [pairs] [size]
#include "bench.h"

enum { kStretches = 20 };

static double CpuSeconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char** argv) {
  const long pairs = Argument(argc, argv, 1, 100000000) / kStretches;
  const size_t size = (size_t)Argument(argc, argv, 2, 64);
  double best = 1e30;
  uint64_t sum = 0;
  for (int stretch = 0; stretch < kStretches; ++stretch) {
    const double start = CpuSeconds();
    for (long i = 0; i < pairs; ++i) {
      volatile unsigned char* block = malloc(size);
      block[0] = (unsigned char)i;
      sum += block[0];
      free((void*)block);
    }
    const double took = (CpuSeconds() - start) * 1e9 / (double)pairs;
    if (took < best) best = took;
  }
  printf("metric ns_per_pair %.3f\n", best);
  return Finish(sum);
}
