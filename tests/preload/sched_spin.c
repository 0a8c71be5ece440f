// SPDX-License-Identifier: Apache-2.0
// Threads that compute without ever calling anything: others must get their turn, timers must be
// kept, and every register must survive. With one processor this needs preemption.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 60
#include <fenv.h>
#include <immintrin.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "pthreads.h"

static atomic_int flag, stop;
static atomic_int baton;

static void* SetsFlag(void* arg) {
  SleepMs(3);
  flag = 1;
  return arg;
}
static void* SpinsOnFlag(void* arg) {
  while (!flag) {
  }
  return arg;
}
// The setter starts after the spinners, and main itself spins too.
static void Flags(const char* name) {
  (void)name;
  for (int i = 0; i < 5; i++) {
    flag = 0;
    pthread_t s[5];
    for (int k = 0; k < 5; k++) s[k] = Start(SpinsOnFlag, NULL);
    pthread_t t = Start(SetsFlag, NULL);
    if (i % 2) SpinsOnFlag(NULL);
    Join(t);
    for (int k = 0; k < 5; k++) Join(s[k]);
  }
}

// A baton goes round among threads that spin for it, some with a pause, some with a yield.
static void* Spins(void* arg) {
  const int me = (int)(intptr_t)arg;
  for (int i = 0; i < 8; i++) {
    while (baton % 4 != me) {
      if (me % 3 == 1) _mm_pause();
      if (me % 3 == 2) sched_yield();
    }
    baton++;
  }
  return NULL;
}
static void Batons(const char* name) {
  (void)name;
  pthread_t t[4];
  for (intptr_t i = 0; i < 4; i++) t[i] = Start(Spins, (void*)i);
  for (int i = 0; i < 4; i++) Join(t[i]);
  CHECK_EQ(baton, 32);
}

// All that compute advance; sleepers wake up meanwhile.
static atomic_ulong progress[8];
static void* Advances(void* arg) {
  while (!stop) progress[(intptr_t)arg]++;
  return NULL;
}
static void* Naps(void* arg) {
  for (int i = 0; i < 10; i++) SleepMs(2);
  return arg;
}
static void Fairness(const char* name) {
  (void)name;
  pthread_t t[8], n[10];
  for (intptr_t i = 0; i < 8; i++) t[i] = Start(Advances, (void*)i);
  for (int i = 0; i < 10; i++) n[i] = Start(Naps, NULL);
  for (int i = 0; i < 10; i++) Join(n[i]);
  for (int i = 0; i < 8; i++) {
    unsigned long before = progress[i];
    EVENTUALLY(progress[i] > before);
  }
  stop = 1;
  for (int i = 0; i < 8; i++) Join(t[i]);
}

// Each thread has a rounding mode and values in all vector and general registers of its own.
__attribute__((noinline, target("avx2"))) static int KeepsVectors(long me, long rounds) {
  __m256i a = _mm256_set1_epi64x(me * 3 + 1), b = _mm256_set1_epi64x(me * 5 + 2),
          c = _mm256_set1_epi64x(me * 7 + 3), d = _mm256_set1_epi64x(me * 11 + 4);
  const __m256i a0 = a, b0 = b, c0 = c, d0 = d;
  for (long i = 0; i < rounds; i++) {
    // Additions that cancel out every second round; nothing goes through memory.
    __m256i x = _mm256_set1_epi64x(i % 2 ? -(i / 2) : i / 2);
    __asm__ volatile("vpaddq %4, %0, %0\n vpaddq %4, %1, %1\n vpaddq %4, %2, %2\n vpaddq %4, %3, %3"
                     : "+x"(a), "+x"(b), "+x"(c), "+x"(d)
                     : "x"(x));
  }
  __m256i same =
      _mm256_and_si256(_mm256_and_si256(_mm256_cmpeq_epi64(a, a0), _mm256_cmpeq_epi64(b, b0)),
                       _mm256_and_si256(_mm256_cmpeq_epi64(c, c0), _mm256_cmpeq_epi64(d, d0)));
  return _mm256_movemask_epi8(same) == -1;
}
static void* KeepsState(void* arg) {
  static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
  const int me = (int)(intptr_t)arg;
  volatile double one = 1, three = 3;
  volatile long double long_one = 1, long_three = 3;
  CHECK_EQ(fegetround(), FE_TONEAREST);
  CHECK_EQ(fesetround(modes[me % 4]), 0);
  _MM_SET_FLUSH_ZERO_MODE(me % 2 ? _MM_FLUSH_ZERO_ON : _MM_FLUSH_ZERO_OFF);
  const double third = one / three;
  const long double long_third = long_one / long_three;
  unsigned short control;
  for (int i = 0; i < 40; i++) {
    if (i % 4 == 0) SleepMs(1);
    if (i % 4 == 1) sched_yield();
    if (i % 4 == 2) Join(Start(Naps, NULL));
    if (__builtin_cpu_supports("avx2")) CHECK(KeepsVectors(me + i, 400000));
    CHECK_EQ(fegetround(), modes[me % 4]);
    CHECK_EQ(_MM_GET_FLUSH_ZERO_MODE(), me % 2 ? _MM_FLUSH_ZERO_ON : _MM_FLUSH_ZERO_OFF);
    __asm__ volatile("fnstcw %0" : "=m"(control));
    CHECK_EQ(control & 0xc00, modes[me % 4]);
    CHECK(one / three == third && long_one / long_three == long_third);
    if (i == 5) i = 30;
  }
  return NULL;
}
static void* FreshState(void* arg) {
  // A new thread starts with its creator's modes.
  CHECK_EQ(fegetround(), FE_UPWARD);
  return arg;
}
static void* SetsAndStarts(void* arg) {
  CHECK_EQ(fesetround(FE_UPWARD), 0);
  Join(Start(FreshState, NULL));
  return arg;
}
static void State(const char* name) {
  (void)name;
  pthread_t t[8];
  for (intptr_t i = 0; i < 8; i++) t[i] = Start(KeepsState, (void*)i);
  for (int i = 0; i < 8; i++) Join(t[i]);
  Join(Start(SetsAndStarts, NULL));
  CHECK_EQ(fegetround(), FE_TONEAREST);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"flags", Flags}, {"batons", Batons}, {"fairness", Fairness}, {"state", State}};
  return RUN_PARTS(parts);
}
