// SPDX-License-Identifier: Apache-2.0
// The thread that allocated sleeps for ever while another frees all it made: the memory can be
// given back to the system and is used again by other threads.
// native: no
// run: 100
// run: name=allocator env=UNDERGO=gc=off,sched=off 60
// The argument: MB that may be taken beyond what was there. A collector that comes at the wrong moment
// sees the dangling pointers in `block`, and leaves the slices that they name unused.
// timeout: 40
#include <pthread.h>

#include "check.h"

enum { kCount = 400000, kBytes = 500 };
static void* block[kCount];
static pthread_barrier_t ready;

static void Allocate(size_t size) {
  for (int i = 0; i < kCount; i++) {
    CHECK((block[i] = malloc(size)) != NULL);
    memset(block[i], 1, size);
  }
}
static void* Owner(void* size) {
  Allocate((size_t)size);
  pthread_barrier_wait(&ready);
  for (;;) SleepMs(1000000);
  return NULL;
}
static void* User(void* size) {
  Allocate((size_t)size);
  return NULL;
}
static void FreeAll(void) {
  for (int i = 0; i < kCount; i++) free(block[i]);
}
static void StartSleeper(void) {
  pthread_t t;
  CHECK_EQ(pthread_create(&t, NULL, Owner, (void*)(size_t)kBytes), 0);
  pthread_barrier_wait(&ready);
}

int main(int argc, char** argv) {
  const long more = (argc > 1 ? atol(argv[1]) : 60) * 1000;
  CHECK_EQ(pthread_barrier_init(&ready, NULL, 2), 0);
  StartSleeper();
  long full = RssKb();
  CHECK(full > 180000);
  FreeAll();
  malloc_trim(0);
  long left = RssKb();
  CHECK_MSG(left < 60000, "freed by another thread: %ld kB of %ld kB left after malloc_trim", left,
            full);

  // Without a trim: what the sleeper's pages held serves the main thread and then a new one.
  StartSleeper();
  full = RssKb();
  FreeAll();
  Allocate(kBytes);
  long again = RssKb();
  CHECK_MSG(again < full + more, "not used again by this thread: %ld kB, then %ld kB", full,
            again);
  FreeAll();
  pthread_t t;
  CHECK_EQ(pthread_create(&t, NULL, User, (void*)(size_t)kBytes), 0);
  pthread_join(t, NULL);
  again = RssKb();
  CHECK_MSG(again < full + more, "not used again by a new thread: %ld kB, then %ld kB", full,
            again);
  FreeAll();
  puts("used again");
  return 0;
}
