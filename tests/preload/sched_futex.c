// SPDX-License-Identifier: Apache-2.0
// Futexes by syscall(), as C++ runtimes, Rust and many allocators wait: wait and wake with and
// without a bit set, requeue, wake-op, timeouts, by callers that the scheduler knows and others.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

static long Futex(void* word, int op, unsigned value, const struct timespec* t, void* word2,
                  unsigned value3) {
  return syscall(SYS_futex, word, op, value, t, word2, value3);
}
#define FAILS(call, error) CHECK_MSG((call) == -1 && errno == (error), "%s: %d", #call, errno)

static atomic_uint word, other, ready, woken;

static void Codes(const char* name) {
  (void)name;
  word = 1;
  FAILS(Futex(&word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0), EAGAIN);
  FAILS(Futex(&word, FUTEX_WAIT, 2, NULL, NULL, 0), EAGAIN);
  struct timespec t = {0, 25000000}, when = In(CLOCK_MONOTONIC, 25);
  FAILS(Futex(&word, FUTEX_WAIT_PRIVATE, 1, &t, NULL, 0), ETIMEDOUT);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  when = In(CLOCK_MONOTONIC, 25);
  FAILS(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 1, &when, NULL, ~0u), ETIMEDOUT);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  when = In(CLOCK_REALTIME, 25);
  FAILS(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 1, &when, NULL, ~0u),
        ETIMEDOUT);
  CHECK(Reached(CLOCK_REALTIME, when));
  FAILS(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 1, NULL, NULL, 0), EINVAL);
  FAILS(Futex((char*)&word + 1, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0), EINVAL);
  FAILS(Futex(NULL, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0), EFAULT);
  FAILS(Futex(&word, 100, 1, NULL, NULL, 0), ENOSYS);
  t.tv_nsec = 1000000000;
  FAILS(Futex(&word, FUTEX_WAIT_PRIVATE, 1, &t, NULL, 0), EINVAL);
  CHECK_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0), 0);
}

static void* Waits(void* arg) {
  const unsigned bits = (unsigned)(uintptr_t)arg;
  atomic_fetch_add(&ready, 1);
  long r = bits ? Futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, bits)
                : Futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
  CHECK_MSG(r == 0, "wait: %s", strerror(errno));
  atomic_fetch_add(&woken, 1);
  return NULL;
}
// Wakes until so many have been; those that are not there yet cannot be lost, word stays 0.
static void Wake(void* at, int count, unsigned bits) {
  for (int left = count, tries = 0; left > 0; tries++) {
    CHECK(tries < kForeverMs);
    long n = bits ? Futex(at, FUTEX_WAKE_BITSET_PRIVATE, (unsigned)left, NULL, NULL, bits)
                  : Futex(at, FUTEX_WAKE_PRIVATE, (unsigned)left, NULL, NULL, 0);
    CHECK(n >= 0 && n <= left);
    left -= (int)n;
    if (left > 0) SleepMs(1);
  }
}
static void Wakes(const char* name) {
  (void)name;
  word = ready = woken = 0;
  pthread_t t[30];
  for (int i = 0; i < 30; i++) t[i] = Start(Waits, i < 10 ? NULL : i < 20 ? (void*)1 : (void*)2);
  EVENTUALLY(ready == 30);
  Moment();
  Wake(&word, 10, 2);  // also reaches those that wait for every bit
  EVENTUALLY(woken == 10);
  Moment();
  CHECK_EQ(woken, 10);
  Wake(&word, 20, 0);
  for (int i = 0; i < 30; i++) Join(t[i]);
  CHECK_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0), 0);
}

static void Requeue(const char* name) {
  (void)name;
  word = other = ready = woken = 0;
  pthread_t t[12];
  for (int i = 0; i < 12; i++) t[i] = Start(Waits, NULL);
  EVENTUALLY(ready == 12);
  FAILS(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 2, (long)100, &other, 5), EAGAIN);
  long total = 0;
  for (int tries = 0; total < 12; tries++) {
    CHECK(tries < kForeverMs);
    long n =
        syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, total ? 0 : 2, (long)100, &other, 0);
    CHECK(n >= 0);
    total += n;
    SleepMs(1);
  }
  EVENTUALLY(woken == 2);
  // Nobody waits at the old place any more.
  CHECK_EQ(Futex(&word, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0), 0);
  Moment();
  CHECK_EQ(woken, 2);
  CHECK_EQ(Futex(&other, FUTEX_WAKE_PRIVATE, 3, NULL, NULL, 0), 3);
  CHECK_EQ(Futex(&other, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0), 7);
  for (int i = 0; i < 12; i++) Join(t[i]);
}

static void WakeOp(const char* name) {
  (void)name;
  word = ready = woken = 0;
  other = 5;
  pthread_t t[4];
  for (int i = 0; i < 4; i++) t[i] = Start(Waits, NULL);
  EVENTUALLY(ready == 4);
  Moment();
  // other += 3; wakes one at word, and none at other since it was not below 5.
  long n = 0;
  for (int i = 0; n == 0 && i < kForeverMs; i++, SleepMs(1)) {
    other = 5;
    n = syscall(SYS_futex, &word, FUTEX_WAKE_OP_PRIVATE, 1, (long)100, &other,
                FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_LT, 5));
  }
  CHECK(n == 1 && other == 8);
  EVENTUALLY(woken == 1);
  Wake(&word, 3, 0);
  for (int i = 0; i < 4; i++) Join(t[i]);
}

// A mutex of one word, as runtimes write them; some users are raw threads.
static atomic_uint lock;
static long counter, inside;
static long RawFutex(void* at, long op, long value) {
  register long r10 __asm__("r10") = 0;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"((long)SYS_futex), "D"(at), "S"(op), "d"(value), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
}
static void Count(int rounds, int raw) {
  for (int i = 0; i < rounds; i++) {
    unsigned was = 0;
    if (!atomic_compare_exchange_strong(&lock, &was, 1)) {
      while (atomic_exchange(&lock, 2) != 0) {
        if (raw)
          RawFutex(&lock, FUTEX_WAIT_PRIVATE, 2);
        else
          Futex(&lock, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
      }
    }
    if (++inside != 1) _exit(3);
    counter++;
    inside--;
    if (atomic_exchange(&lock, 0) == 2) {
      if (raw)
        RawFutex(&lock, FUTEX_WAKE_PRIVATE, 1);
      else
        Futex(&lock, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
  }
}
static void* Counts(void* arg) {
  Count(5000, arg != NULL);
  return NULL;
}
static void Mutex(const char* name) {
  (void)name;
  pthread_t t[6];
  for (int i = 0; i < 6; i++) t[i] = Start(Counts, NULL);
  for (int i = 0; i < 6; i++) Join(t[i]);
  CHECK_EQ(counter, 30000);
}
// The same where all wait by the instruction itself, which no library sees: a thread that waits so
// keeps its kernel thread, and the others must go on.
static void Inline(const char* name) {
  (void)name;
  counter = 0;
  pthread_t t[6];
  for (int i = 0; i < 6; i++) t[i] = Start(Counts, &counter);
  for (int i = 0; i < 6; i++) Join(t[i]);
  CHECK_EQ(counter, 30000);
}

// A word between processes: the child waits, threads of this process wake it.
static void Shared(const char* name) {
  (void)name;
  atomic_uint* shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(60);
    for (unsigned i = 0; i < 100; i++) {
      while (shared[0] == i) Futex(&shared[0], FUTEX_WAIT, i, NULL, NULL, 0);
      shared[1]++;
      Futex(&shared[1], FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    _exit(0);
  }
  for (unsigned i = 0; i < 100; i++) {
    shared[0]++;
    Futex(&shared[0], FUTEX_WAKE, 1, NULL, NULL, 0);
    while (shared[1] == i) Futex(&shared[1], FUTEX_WAIT, i, NULL, NULL, 0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"codes", Codes},    {"wakes", Wakes}, {"requeue", Requeue},
                               {"wake_op", WakeOp}, {"mutex", Mutex}, {"inline", Inline},
                               {"shared", Shared}};
  return RUN_PARTS(parts);
}
