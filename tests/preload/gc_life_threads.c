// SPDX-License-Identifier: Apache-2.0
// Threads come and go all the time while collections run: joined, detached, cancelled, ended by
// pthread_exit, with destructors of keys that allocate, from raw clone. All keep what they hold.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=swept_stopped env=GODEBUG=gcstoptheworld=2,clobberfree=1 1
// run: name=stopped env=GODEBUG=gcstoptheworld=1 1
// run: name=long pace=long 10
// timeout: 90
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "gc.h"

static pthread_key_t key;
static atomic_int detached;
static atomic_ulong ended;

static void Destroy(void* p) {
  CheckLive(p, 20, 7);
  free(malloc(100));
  atomic_fetch_add(&ended, 1);
}
static void* Short(void* arg) {
  Live* live = MakeLive(100, 5);
  CHECK_EQ(pthread_setspecific(key, MakeLive(20, 7)), 0);
  Leak(200);
  if ((intptr_t)arg % 3 == 1) sched_yield();
  CheckLive(live, 100, 5);
  if ((intptr_t)arg % 4 == 2) pthread_exit(live);
  if ((intptr_t)arg % 4 == 3) {
    atomic_fetch_sub(&detached, 1);
    return NULL;
  }
  return live;
}
static void* Waits(void* arg) {
  Live* volatile live = MakeLive(50, 9);
  CHECK_EQ(pthread_setspecific(key, MakeLive(20, 7)), 0);
  for (;;) {
    SleepMs(1000);
    CheckLive(live, 50, 9);
  }
  return arg;
}
static void* Starter(void* end) {
  Live* live = MakeLive(1000, 3);
  for (intptr_t n = 0; Seconds() < *(double*)end; n++) {
    pthread_t t[3], waits;
    CHECK_EQ(pthread_create(&waits, NULL, Waits, NULL), 0);
    for (intptr_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, Short, (void*)i), 0);
    pthread_t free_running;
    atomic_fetch_add(&detached, 1);
    CHECK_EQ(pthread_create(&free_running, NULL, Short, (void*)3), 0);
    CHECK_EQ(pthread_detach(free_running), 0);
    for (int i = 0; i < 3; i++) {
      void* result;
      CHECK_EQ(pthread_join(t[i], &result), 0);
      CheckLive(result, 100, 5);
    }
    CHECK_EQ(pthread_cancel(waits), 0);
    void* result;
    CHECK_EQ(pthread_join(waits, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    CheckLive(live, 1000, 3);
  }
  return NULL;
}

// A thread that the C library does not know; it uses no memory of the heap, but holds a pointer.
static uintptr_t hidden;
static _Atomic uintptr_t seen;
static atomic_int raw_go;
static int Raw(void* arg) {
  (void)arg;
  void* volatile p = Reveal(hidden);
  while (!raw_go) sched_yield();
  seen = Hide(p);
  return 0;
}

int main(int argc, char** argv) {
  double end = Seconds() + (argc > 1 ? atof(argv[1]) : 1.5);
  CHECK_EQ(pthread_key_create(&key, Destroy), 0);
  hidden = Hide(NewObject(1));
  char* stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(stack != MAP_FAILED);
  int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  CHECK(clone(Raw, stack + 65536, flags, NULL) > 0);
  StartCollector();
  pthread_t starter[2];
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&starter[i], NULL, Starter, &end), 0);
  for (int i = 0; i < 2; i++) pthread_join(starter[i], NULL);
  while (detached > 0) SleepMs(1);
  StopCollector(5);
  CheckObject(Reveal(hidden), 1, "a thread of raw clone");
  raw_go = 1;
  while (seen == 0) SleepMs(1);
  CHECK(seen == hidden);
  free(Reveal(hidden));
  CHECK(ended > 20);
  puts("all right");
  return 0;
}
