// SPDX-License-Identifier: Apache-2.0
// Threads of C11: thrd, mtx, cnd, tss and call_once, which have symbols of their own in the C
// library.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>
#include <threads.h>

#include "pthreads.h"

static mtx_t mutex;
static cnd_t cond;
static tss_t key;
static once_flag once = ONCE_FLAG_INIT;
static atomic_int calls, destroyed, running;
static int turn, waiting;
static thread_local int own = 3;
static int value;

static int Returns(void* arg) { return (int)(intptr_t)arg; }
static int Exits(void* arg) { thrd_exit((int)(intptr_t)arg); }
static int Myself(void* arg) {
  *(thrd_t*)arg = thrd_current();
  return 0;
}
static int Detached(void* arg) {
  (void)arg;
  thrd_yield();
  running--;
  return 0;
}
static void Threads(const char* name) {
  (void)name;
  thrd_t t, seen;
  for (int i = -50; i < 50; i++) {
    int result;
    CHECK_EQ(thrd_create(&t, i % 2 ? Returns : Exits, (void*)(intptr_t)i), thrd_success);
    CHECK_EQ(thrd_join(t, &result), thrd_success);
    CHECK_EQ(result, i);
  }
  CHECK_EQ(thrd_create(&t, Myself, &seen), thrd_success);
  CHECK_EQ(thrd_join(t, NULL), thrd_success);
  CHECK(thrd_equal(t, seen) && !thrd_equal(t, thrd_current()));
  for (int i = 0; i < 50; i++) {
    running++;
    CHECK_EQ(thrd_create(&t, Detached, NULL), thrd_success);
    CHECK_EQ(thrd_detach(t), thrd_success);
  }
  EVENTUALLY(running == 0);
  struct timespec ms = {0, 5000000}, when = In(CLOCK_MONOTONIC, 5);
  CHECK_EQ(thrd_sleep(&ms, NULL), 0);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  struct timespec bad = {0, 2000000000};
  CHECK(thrd_sleep(&bad, NULL) < -1);
}

static int TriesMutex(void* arg) {
  mtx_t* m = arg;
  CHECK_EQ(mtx_trylock(m), thrd_busy);
  struct timespec when = In(CLOCK_REALTIME, 15);
  CHECK_EQ(mtx_timedlock(m, &when), thrd_timedout);
  CHECK(Reached(CLOCK_REALTIME, when));
  return 0;
}
static void Run(thrd_start_t body, void* arg) {
  thrd_t t;
  CHECK_EQ(thrd_create(&t, body, arg), thrd_success);
  CHECK_EQ(thrd_join(t, NULL), thrd_success);
}
static int Counts(void* arg) {
  for (int i = 0; i < 3000; i++) {
    CHECK_EQ(mtx_lock(&mutex), thrd_success);
    ++*(int*)arg;
    CHECK_EQ(mtx_unlock(&mutex), thrd_success);
  }
  return 0;
}
static void Mutexes(const char* name) {
  (void)name;
  mtx_t m;
  CHECK_EQ(mtx_init(&m, mtx_timed), thrd_success);
  CHECK_EQ(mtx_lock(&m), thrd_success);
  Run(TriesMutex, &m);
  CHECK_EQ(mtx_unlock(&m), thrd_success);
  mtx_destroy(&m);
  CHECK_EQ(mtx_init(&m, mtx_timed | mtx_recursive), thrd_success);
  for (int i = 0; i < 5; i++) CHECK_EQ(mtx_lock(&m), thrd_success);
  CHECK_EQ(mtx_trylock(&m), thrd_success);
  for (int i = 0; i < 5; i++) CHECK_EQ(mtx_unlock(&m), thrd_success);
  Run(TriesMutex, &m);
  CHECK_EQ(mtx_unlock(&m), thrd_success);
  thrd_t t[5];
  int count = 0;
  for (int i = 0; i < 5; i++) CHECK_EQ(thrd_create(&t[i], Counts, &count), thrd_success);
  for (int i = 0; i < 5; i++) thrd_join(t[i], NULL);
  CHECK_EQ(count, 15000);
}

static int Turns(void* arg) {
  const int me = (int)(intptr_t)arg;
  for (int i = 0; i < 300; i++) {
    mtx_lock(&mutex);
    while (turn % 3 != me) CHECK_EQ(cnd_wait(&cond, &mutex), thrd_success);
    turn++;
    CHECK_EQ(cnd_broadcast(&cond), thrd_success);
    mtx_unlock(&mutex);
  }
  return 0;
}
static int WaitsOnce(void* arg) {
  (void)arg;
  mtx_lock(&mutex);
  waiting++;
  while (turn == 0) CHECK_EQ(cnd_wait(&cond, &mutex), thrd_success);
  turn--;
  waiting--;
  mtx_unlock(&mutex);
  return 0;
}
static void Conditions(const char* name) {
  (void)name;
  mtx_lock(&mutex);
  struct timespec when = In(CLOCK_REALTIME, 15);
  CHECK_EQ(cnd_timedwait(&cond, &mutex, &when), thrd_timedout);
  CHECK(Reached(CLOCK_REALTIME, when));
  mtx_unlock(&mutex);
  thrd_t t[3];
  for (intptr_t i = 0; i < 3; i++) thrd_create(&t[i], Turns, (void*)i);
  for (int i = 0; i < 3; i++) thrd_join(t[i], NULL);
  CHECK_EQ(turn, 900);
  turn = 0;
  for (int i = 0; i < 3; i++) thrd_create(&t[i], WaitsOnce, NULL);
  for (int left = 3; left > 0; left--) {
    int now = 0;
    mtx_lock(&mutex);
    turn++;
    CHECK_EQ(cnd_signal(&cond), thrd_success);
    mtx_unlock(&mutex);
    for (int i = 0; i < kForeverMs; i++) {
      mtx_lock(&mutex);
      now = turn;
      mtx_unlock(&mutex);
      if (now == 0) break;
      SleepMs(1);
    }
    CHECK_EQ(now, 0);
  }
  for (int i = 0; i < 3; i++) thrd_join(t[i], NULL);
  cnd_destroy(&cond);
}

static void Destroy(void* p) {
  CHECK(p == &value);
  destroyed++;
}
static void Init(void) {
  SleepMs(2);
  calls++;
}
static int UsesKey(void* arg) {
  call_once(&once, Init);
  CHECK_EQ(calls, 1);
  CHECK(tss_get(key) == NULL);
  CHECK_EQ(tss_set(key, arg), thrd_success);
  own++;
  thrd_yield();
  CHECK(tss_get(key) == arg && own == 4);
  return 0;
}
static void Keys(const char* name) {
  (void)name;
  CHECK_EQ(tss_create(&key, Destroy), thrd_success);
  thrd_t t[20];
  for (int i = 0; i < 20; i++) thrd_create(&t[i], UsesKey, &value);
  for (int i = 0; i < 20; i++) thrd_join(t[i], NULL);
  CHECK_EQ(destroyed, 20);
  tss_delete(key);
}

int main(int argc, char** argv) {
  CHECK(mtx_init(&mutex, mtx_plain) == thrd_success && cnd_init(&cond) == thrd_success);
  static const Part parts[] = {
      {"threads", Threads}, {"mutexes", Mutexes}, {"conditions", Conditions}, {"keys", Keys}};
  return RUN_PARTS(parts);
}
