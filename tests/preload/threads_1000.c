// SPDX-License-Identifier: Apache-2.0
// A thousand threads alive at once, each with blocks of its own, which their neighbours free.
// The argument bounds the peak RSS in kB: the collector's slack byte makes many objects a size class
// larger, and what the threads free stays in their spans until a cycle is over.
// run: 900000
// run: name=allocator env=UNDERGO=gc=off,sched=off 750000
// timeout: 40
#include <pthread.h>

#include "check.h"

enum { kThreads = 1000, kBlocks = 60 };
static unsigned char* block[kThreads][kBlocks];
static pthread_barrier_t barrier;

static size_t SizeOf(size_t i) { return 8 + i * i * 3; }

static void* Worker(void* arg) {
  size_t me = (size_t)arg;
  for (size_t i = 0; i < kBlocks; i++) {
    CHECK((block[me][i] = malloc(SizeOf(i))) != NULL);
    Fill(block[me][i], SizeOf(i), me * 100 + i);
  }
  pthread_barrier_wait(&barrier);
  size_t other = (me + 1) % kThreads;
  for (size_t i = 0; i < kBlocks; i++) {
    CHECK_MSG(Verify(block[other][i], SizeOf(i), other * 100 + i) == SizeOf(i),
              "block %zu of thread %zu was overwritten", i, other);
    free(block[other][i]);
  }
  pthread_barrier_wait(&barrier);
  for (size_t i = 0; i < kBlocks; i++) {
    void* p = calloc(1, SizeOf(i));
    CHECK(p);
    free(p);
  }
  return NULL;
}

int main(int argc, char** argv) {
  const long bound = argc > 1 ? atol(argv[1]) : 750000;
  static pthread_t t[kThreads];
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 128 << 10);
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, kThreads), 0);
  for (int round = 0; round < 2; round++) {
    for (size_t i = 0; i < kThreads; i++)
      CHECK_EQ(pthread_create(&t[i], &attr, Worker, (void*)i), 0);
    for (size_t i = 0; i < kThreads; i++) pthread_join(t[i], NULL);
  }
  // 215 kB are live for each thread, and each touches spans of its own in many size classes.
  long peak = ProcField("/proc/self/status", "VmHWM");
  CHECK_MSG(peak < bound, "peak RSS %ld kB", peak);
  puts("a thousand right");
  return 0;
}
