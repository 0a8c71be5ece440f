// SPDX-License-Identifier: Apache-2.0
// Stacks of threads that wait for long lose the pages that they do not use, and nothing else; also
// when the threads go on at that very moment.
// run: name=thousand 1000
// run: name=many pace=long 10000
// run: name=one env=GOMAXPROCS=1 500
// run: name=nogc env=UNDERGO=gc=off 500
// run: name=wakes pace=long wakes 400
// timeout: 90
#include <semaphore.h>
#include <stdatomic.h>

#include "pthreads.h"

enum { kUsed = 64 << 10, kStack = 256 << 10 };

static sem_t go;
static atomic_long deep;

// Fills so many bytes of the stack below the caller with a pattern and reads it back.
__attribute__((noinline)) static long Dig(size_t bytes, unsigned seed) {
  volatile unsigned char piece[1024];
  for (size_t i = 0; i < sizeof piece; i++) piece[i] = (unsigned char)(seed + i);
  long sum = bytes > sizeof piece ? Dig(bytes - sizeof piece, seed * 31 + 1) : 0;
  for (size_t i = 0; i < sizeof piece; i++) {
    CHECK_EQ(piece[i], (unsigned char)(seed + i));
    sum += piece[i];
  }
  return sum;
}

static void* Waits(void* arg) {
  const unsigned seed = (unsigned)(uintptr_t)arg;
  volatile unsigned kept[700];  // lies across a page
  for (unsigned i = 0; i < 700; i++) kept[i] = seed + i;
  long before = Dig(kUsed, seed);
  deep++;
  while (sem_wait(&go) != 0) {
  }
  for (unsigned i = 0; i < 700; i++) CHECK_EQ(kept[i], seed + i);
  CHECK_EQ(Dig(kUsed, seed), before);
  return arg;
}

static pthread_t* Make(int n, ThreadBody body) {
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, kStack);
  pthread_t* t = malloc((size_t)n * sizeof *t);
  for (int i = 0; i < n; i++) {
    int error = pthread_create(&t[i], &attr, body, (void*)(uintptr_t)i);
    CHECK_MSG(error == 0, "%d: %s", i, strerror(error));
  }
  return t;
}

// The threads have run on a few stacks one after the other or all at once; that each of them used
// its own is what the memory says.
static void Falls(int n) {
  long base = RssKb();
  pthread_t* t = Make(n, Waits);
  EVENTUALLY(deep == n);
  if (UnderPreload()) {
    long now = 0;
    for (int i = 0; i < 300; i++) {
      now = RssKb() - base;
      if (now <= n * 24L) break;
      SleepMs(100);
    }
    CHECK_MSG(now <= n * 24L, "%ld KiB are left after 30 s, wanted %ld", now, n * 24L);
  }
  for (int i = 0; i < n; i++) sem_post(&go);
  for (int i = 0; i < n; i++) Join(t[i]);
  free(t);
}

static void* Wakes(void* arg) {
  unsigned seed = (unsigned)(uintptr_t)arg * 2654435761u + 1;
  for (int round = 0; round < 200; round++) {
    Dig(40 << 10, seed);
    seed = seed * 1103515245 + 12345;
    // A debug build looks at waits of 20 ms, others at those of two seconds.
    SleepMs((round % 50 == 0 ? 2000 : 20) + (int)(seed >> 16) % 30);
  }
  Dig(40 << 10, seed);
  return arg;
}

int main(int argc, char** argv) {
  sem_init(&go, 0, 0);
  if (argc > 2) {
    int n = atoi(argv[2]);
    pthread_t* t = Make(n, Wakes);
    for (int i = 0; i < n; i++) Join(t[i]);
    free(t);
  } else {
    Falls(argc > 1 ? atoi(argv[1]) : 1000);
  }
  puts("all right");
  return 0;
}
