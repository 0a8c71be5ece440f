// SPDX-License-Identifier: Apache-2.0
// Loops over an array by OpenMP, many short regions one after the other.
// build: -fopenmp
//   openmp CELLS REGIONS
#include "schedbench.h"

int main(int argc, char** argv) {
  const long cells = Argument(argc, argv, 1, 200000), regions = Argument(argc, argv, 2, 1000);
  uint64_t* from = Must(malloc((size_t)cells * sizeof *from));
  uint64_t* to = Must(malloc((size_t)cells * sizeof *to));
  for (long i = 0; i < cells; i++) from[i] = (uint64_t)i;
  const double begin = NowSeconds();
  for (long r = 0; r < regions; r++) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < cells; i++)
      to[i] = Mix(from[i], from[(i + 1) % cells] ^ from[(i + cells - 1) % cells]);
    uint64_t* other = from;
    from = to;
    to = other;
  }
  Metric("s", NowSeconds() - begin);
  uint64_t sum = 0;
  for (long i = 0; i < cells; i++) sum = Mix(sum, from[i]);
  free(from), free(to);
  return Finish(sum);
}
