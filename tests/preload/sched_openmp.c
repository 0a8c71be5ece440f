// SPDX-License-Identifier: Apache-2.0
// OpenMP under libgomp, whose threads wait by instructions of their own and spin before: regions,
// barriers, tasks, more threads than processors, and regions within threads.
// build: -fopenmp
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=passive env=OMP_WAIT_POLICY=passive
// run: name=threads env=OMP_NUM_THREADS=8
// timeout: 60
#include <omp.h>

#include "pthreads.h"

static void Regions(const char* name) {
  (void)name;
  enum { kCells = 100000 };
  static double cells[kCells];
  double sum = 0;
  for (int round = 0; round < 20; round++) {
#pragma omp parallel for reduction(+ : sum)
    for (int i = 0; i < kCells; i++) {
      cells[i] = cells[i] + i % 7;
      sum += cells[i];
    }
  }
  double want = 0;
  for (int i = 0; i < kCells; i++) want += i % 7;
  CHECK_MSG(sum == want * 210, "%f instead of %f", sum, want * 210);
}
static void Barriers(const char* name) {
  (void)name;
  int step = 0, together = 0;
#pragma omp parallel num_threads(6)
  for (int i = 1; i <= 40; i++) {
#pragma omp barrier
#pragma omp single
    step++;
    CHECK_EQ(step, i);
#pragma omp critical
    together++;
#pragma omp barrier
    CHECK_EQ(together, 6 * i);
  }
}
static long Fibonacci(int n) {
  if (n < 2) return n;
  long a, b;
#pragma omp task shared(a) if (n > 12)
  a = Fibonacci(n - 1);
#pragma omp task shared(b) if (n > 12)
  b = Fibonacci(n - 2);
#pragma omp taskwait
  return a + b;
}
static void Tasks(const char* name) {
  (void)name;
  long f = 0;
#pragma omp parallel num_threads(4)
#pragma omp single
  f = Fibonacci(20);
  CHECK_EQ(f, 6765);
}
static void* Inner(void* arg) {
  long sum = 0;
#pragma omp parallel for num_threads(3) reduction(+ : sum)
  for (int i = 0; i < 1000; i++) {
    if (i % 250 == 0) SleepMs(1);
    sum += i;
  }
  CHECK_EQ(sum, 499500);
  return arg;
}
static void WithinThreads(const char* name) {
  (void)name;
  pthread_t t[5];
  for (int i = 0; i < 5; i++) t[i] = Start(Inner, NULL);
  for (int i = 0; i < 5; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"regions", Regions},
                               {"barriers", Barriers},
                               {"tasks", Tasks},
                               {"within_threads", WithinThreads}};
  return RUN_PARTS(parts);
}
