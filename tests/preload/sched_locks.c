// SPDX-License-Identifier: Apache-2.0
// Read-write locks of every preference, barriers, spin locks, and once-initialisation.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>

#include "pthreads.h"

static pthread_rwlock_t rw;
static atomic_int readers, writers, step, most_readers;

static void MakeRw(int kind) {
  pthread_rwlockattr_t a;
  pthread_rwlockattr_init(&a);
  int got;
  CHECK(pthread_rwlockattr_setkind_np(&a, kind) == 0 &&
        pthread_rwlockattr_getkind_np(&a, &got) == 0 && got == kind);
  CHECK_EQ(pthread_rwlock_init(&rw, &a), 0);
  pthread_rwlockattr_destroy(&a);
}
static void* TryBoth(void* want) {
  const intptr_t held = (intptr_t)want;  // 'r' or 'w': by another thread
  CHECK_EQ(pthread_rwlock_trywrlock(&rw), EBUSY);
  CHECK_EQ(pthread_rwlock_tryrdlock(&rw), held == 'r' ? 0 : EBUSY);
  if (held == 'r') CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  struct timespec when = In(CLOCK_REALTIME, 15);
  CHECK_EQ(pthread_rwlock_timedwrlock(&rw, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_REALTIME, when));
  when = In(CLOCK_MONOTONIC, 15);
  CHECK_EQ(pthread_rwlock_clockwrlock(&rw, CLOCK_MONOTONIC, &when), ETIMEDOUT);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  when = In(CLOCK_MONOTONIC, 15);
  CHECK_EQ(pthread_rwlock_clockrdlock(&rw, CLOCK_MONOTONIC, &when), held == 'r' ? 0 : ETIMEDOUT);
  if (held == 'r') CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  when = In(CLOCK_REALTIME, 15);
  CHECK_EQ(pthread_rwlock_timedrdlock(&rw, &when), held == 'r' ? 0 : ETIMEDOUT);
  if (held == 'r') CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  when.tv_nsec = 1000000000;
  CHECK_EQ(pthread_rwlock_timedwrlock(&rw, &when), EINVAL);
  CHECK_EQ(pthread_rwlock_clockrdlock(&rw, CLOCK_THREAD_CPUTIME_ID, &when), EINVAL);
  return NULL;
}
static void RwCodes(const char* name) {
  (void)name;
  for (int kind = 0; kind < 3; kind++) {
    MakeRw(kind);
    CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_trywrlock(&rw), EBUSY);
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
    Join(Start(TryBoth, (void*)'r'));
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_wrlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_wrlock(&rw), EDEADLK);
    CHECK_EQ(pthread_rwlock_rdlock(&rw), EDEADLK);
    CHECK_EQ(pthread_rwlock_trywrlock(&rw), EBUSY);
    Join(Start(TryBoth, (void*)'w'));
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_trywrlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
    CHECK_EQ(pthread_rwlock_destroy(&rw), 0);
  }
}

static void* Reader(void* arg) {
  for (int i = 0; i < 3000; i++) {
    CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
    int n = atomic_fetch_add(&readers, 1) + 1;
    if (n > most_readers) most_readers = n;
    CHECK_EQ(writers, 0);
    if (i % 1000 == 0) SleepMs(2);
    atomic_fetch_sub(&readers, 1);
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  }
  return arg;
}
static void* Writer(void* arg) {
  for (int i = 0; i < 1000; i++) {
    struct timespec when = In(CLOCK_REALTIME, 60000);
    CHECK_EQ(i % 2 ? pthread_rwlock_wrlock(&rw) : pthread_rwlock_timedwrlock(&rw, &when), 0);
    CHECK_EQ(atomic_fetch_add(&writers, 1), 0);
    CHECK_EQ(readers, 0);
    if (i % 100 == 0) usleep(50);
    atomic_fetch_sub(&writers, 1);
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
    if (i % 50 == 0) sched_yield();
  }
  return arg;
}
static void RwExclusion(const char* name) {
  (void)name;
  for (int kind = 0; kind < 3; kind++) {
    MakeRw(kind);
    pthread_t t[6];
    for (int i = 0; i < 6; i++) t[i] = Start(i < 4 ? Reader : Writer, NULL);
    for (int i = 0; i < 6; i++) Join(t[i]);
    CHECK(pthread_rwlock_trywrlock(&rw) == 0);
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  }
  CHECK_MSG(most_readers > 1, "readers never were inside together");
}

// With preference for writers a new reader waits behind a waiting writer; by default it passes.
static void* WritesNow(void* arg) {
  step = 1;
  CHECK_EQ(pthread_rwlock_wrlock(&rw), 0);
  step = 2;
  CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  return arg;
}
static void* ReadsNow(void* arg) {
  struct timespec when = In(CLOCK_REALTIME, 50);
  int error = pthread_rwlock_timedrdlock(&rw, &when);
  if (error == 0) CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
  *(int*)arg = error;
  return NULL;
}
static void RwPreference(const char* name) {
  (void)name;
  for (int prefer_writer = 0; prefer_writer < 2; prefer_writer++) {
    MakeRw(prefer_writer ? PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP
                         : PTHREAD_RWLOCK_PREFER_READER_NP);
    step = 0;
    CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
    pthread_t writer = Start(WritesNow, NULL);
    EVENTUALLY(step == 1);
    SleepMs(5 * kMomentMs);
    CHECK_EQ(step, 1);
    int error;
    Join(Start(ReadsNow, &error));
    CHECK_EQ(error, prefer_writer ? ETIMEDOUT : 0);
    CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
    Join(writer);
    CHECK_EQ(step, 2);
  }
}

enum { kParty = 7, kMeetings = 400 };
static pthread_barrier_t barrier;
static atomic_int arrived, serial;
static void* Meets(void* arg) {
  for (int i = 1; i <= kMeetings; i++) {
    atomic_fetch_add(&arrived, 1);
    int r = pthread_barrier_wait(&barrier);
    CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
    CHECK_MSG(arrived >= i * kParty, "let through before all had come");
    if (r != 0) atomic_fetch_add(&serial, 1);
    CHECK(pthread_barrier_wait(&barrier) <= 0);
  }
  return arg;
}
static void Barriers(const char* name) {
  (void)name;
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, 0), EINVAL);
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, 1), 0);
  CHECK_EQ(pthread_barrier_wait(&barrier), PTHREAD_BARRIER_SERIAL_THREAD);
  CHECK_EQ(pthread_barrier_destroy(&barrier), 0);
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, kParty), 0);
  pthread_t t[kParty];
  for (int i = 0; i < kParty; i++) t[i] = Start(Meets, NULL);
  for (int i = 0; i < kParty; i++) Join(t[i]);
  CHECK_EQ(serial, kMeetings);
  // May be destroyed as soon as one has returned.
  CHECK_EQ(pthread_barrier_destroy(&barrier), 0);
}

// More spinners than CPUs: an owner that was interrupted must run again.
static pthread_spinlock_t spin;
static long spun;
static volatile int spin_inside;
static void* Spins(void* arg) {
  for (int i = 0; i < 5000; i++) {
    if (i % 7 == 0) {
      while (pthread_spin_trylock(&spin) == EBUSY) sched_yield();
    } else {
      CHECK_EQ(pthread_spin_lock(&spin), 0);
    }
    CHECK_EQ(spin_inside++, 0);
    if (i % 50 == 0) sched_yield();
    spun++;
    spin_inside--;
    CHECK_EQ(pthread_spin_unlock(&spin), 0);
  }
  return arg;
}
static void SpinLocks(const char* name) {
  (void)name;
  CHECK_EQ(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE), 0);
  pthread_t t[4];
  for (int i = 0; i < 4; i++) t[i] = Start(Spins, NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  CHECK_EQ(spun, 20000);
  CHECK_EQ(pthread_spin_destroy(&spin), 0);
}

// One initialiser runs, all wait for it; a cancelled one does not count.
static pthread_once_t once = PTHREAD_ONCE_INIT, second = PTHREAD_ONCE_INIT;
static atomic_int inits, entered;
static void InitNested(void) { atomic_fetch_add(&inits, 1); }
static void Init(void) {
  atomic_fetch_add(&entered, 1);
  for (int i = 0; i < 5; i++) SleepMs(4);
  CHECK_EQ(pthread_once(&second, InitNested), 0);
  atomic_fetch_add(&inits, 1);
}
static void* Once(void* arg) {
  CHECK_EQ(pthread_once(&once, Init), 0);
  CHECK_EQ(inits, 2);
  return arg;
}
static pthread_once_t third = PTHREAD_ONCE_INIT;
static void InitCancelled(void) {
  if (atomic_fetch_add(&entered, 1) == 0)
    for (;;) SleepMs(1000);
}
static void* OnceCancelled(void* arg) {
  CHECK_EQ(pthread_once(&third, InitCancelled), 0);
  return arg;
}
static void Onces(const char* name) {
  (void)name;
  pthread_t t[30];
  for (int i = 0; i < 30; i++) t[i] = Start(Once, NULL);
  for (int i = 0; i < 30; i++) Join(t[i]);
  CHECK_EQ(entered, 1);
  entered = 0;
  pthread_t first = Start(OnceCancelled, NULL);
  EVENTUALLY(entered == 1);
  for (int i = 0; i < 10; i++) t[i] = Start(OnceCancelled, NULL);
  Moment();
  CHECK_EQ(pthread_cancel(first), 0);
  CHECK(Join(first) == PTHREAD_CANCELED);
  for (int i = 0; i < 10; i++) Join(t[i]);
  CHECK_EQ(entered, 2);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"rw_codes", RwCodes},           {"rw_exclusion", RwExclusion},
                               {"rw_preference", RwPreference}, {"barriers", Barriers},
                               {"spin_locks", SpinLocks},       {"onces", Onces}};
  return RUN_PARTS(parts);
}
