// SPDX-License-Identifier: Apache-2.0
// Threads that copy by vector registers while others wait for their CPU: what they had in the
// registers is there when they go on, whatever the alignment of their stack pointer.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 60
#include "pthreads.h"

enum { kThreads = 12, kRounds = 120, kSize = 1 << 21 };

static void* Copies(void* arg) {
  const size_t me = (size_t)arg;
  volatile char* shift = __builtin_alloca(16 + 16 * me);
  shift[0] = 1;
  char *from = malloc(kSize + 64), *to = malloc(kSize + 64);
  CHECK(from && to);
  for (size_t i = 0; i < kSize + 64; i++) from[i] = (char)(i * 31 + i / 256 + me + 1) | 1;
  for (int k = 0; k < kRounds; k++) {
    memset(to, 0, kSize + 64);
    memcpy(to + k % 64, from, kSize);
    for (size_t i = 0; i < kSize; i += 8) {
      long long a, b;
      __builtin_memcpy(&a, to + k % 64 + i, 8), __builtin_memcpy(&b, from + i, 8);
      CHECK_MSG(a == b, "round %d: byte %zu is lost", k, i);
    }
  }
  free(from), free(to);
  return arg;
}
static void Vectors(const char* name) {
  (void)name;
  pthread_t t[kThreads];
  for (intptr_t i = 0; i < kThreads; i++) t[i] = Start(Copies, (void*)i);
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"vectors", Vectors}};
  return RUN_PARTS(parts);
}
