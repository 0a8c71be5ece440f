// SPDX-License-Identifier: Apache-2.0
// Stacks: given by the program, as small as allowed, very large, with guards of every size; used to
// the end, overflowed, and used again by later threads.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <limits.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pthreads.h"

static atomic_int counter;
static sem_t sem;

static void* Small(void* arg) {
  // printf and a lazily bound call need some kilobytes.
  char text[100];
  snprintf(text, sizeof text, "%d %s", (int)(intptr_t)arg, strerror(ENOENT));
  CHECK(strstr(text, "No such file"));
  sched_yield();
  SleepMs(1);
  free(malloc(1000));
  counter++;
  return NULL;
}
static void Minimum(const char* name) {
  (void)name;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  CHECK_EQ(pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN), 0);
  pthread_t t[100];
  counter = 0;
  for (int i = 0; i < 100; i++) CHECK_EQ(pthread_create(&t[i], &attr, Small, NULL), 0);
  for (int i = 0; i < 100; i++) Join(t[i]);
  CHECK_EQ(counter, 100);
}

// The program's own memory: the thread runs in it, nothing outside it is written, and it belongs
// to the program again afterwards.
enum { kOwn = 128 << 10 };
static char* own;
static void* InOwn(void* arg) {
  char here;
  CHECK(&here > own && &here < own + kOwn);
  void* low;
  size_t size;
  pthread_attr_t attr;
  CHECK_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
  CHECK(pthread_attr_getstack(&attr, &low, &size) == 0 && low == own && size == kOwn);
  SleepMs(1);
  sched_yield();
  counter++;
  return arg;
}
static void Own(const char* name) {
  (void)name;
  char* map = mmap(NULL, kOwn + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(map != MAP_FAILED);
  own = map + 4096;
  for (int i = 0; i < 50; i++) {
    memset(map, 0xee, kOwn + 8192);
    pthread_attr_t attr;
    pthread_t t;
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstack(&attr, own, kOwn), 0);
    counter = 0;
    CHECK_EQ(pthread_create(&t, &attr, InOwn, NULL), 0);
    Join(t);
    CHECK_EQ(counter, 1);
    for (int k = 0; k < 4096; k++)
      CHECK(map[k] == (char)0xee && map[4096 + kOwn + k] == (char)0xee);
  }
  CHECK_EQ(munmap(map, kOwn + 8192), 0);
}

// Almost all of a large stack is used, by one deep frame and by many.
__attribute__((noinline)) static long Deep(int depth) {
  volatile char frame[4000];
  for (int i = 0; i < 4000; i += 500) frame[i] = (char)depth;
  if (depth % 64 == 0) sched_yield();
  long below = depth ? Deep(depth - 1) : 0;
  for (int i = 0; i < 4000; i += 500) CHECK(frame[i] == (char)depth);
  return below + 1;
}
static void* Uses(void* arg) {
  size_t size = (size_t)arg;
  volatile char* block = __builtin_alloca(size / 2);
  for (size_t i = 0; i < size / 2; i += 4096) block[i] = 1;
  SleepMs(1);
  CHECK_EQ(Deep((int)(size / 2 / 4200) - 8), (long)(size / 2 / 4200) - 7);
  for (size_t i = 0; i < size / 2; i += 4096) CHECK(block[i] == 1);
  return NULL;
}
static void Large(const char* name) {
  (void)name;
  static const size_t sizes[] = {256 << 10, 1 << 20, 8 << 20, 48 << 20};
  for (int round = 0; round < 3; round++) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
      pthread_attr_t attr;
      pthread_attr_init(&attr);
      CHECK_EQ(pthread_attr_setstacksize(&attr, sizes[i]), 0);
      CHECK_EQ(pthread_create(&t[i], &attr, Uses, (void*)sizes[i]), 0);
      pthread_attr_destroy(&attr);
    }
    for (int i = 0; i < 4; i++) Join(t[i]);
  }
}

// Past the end is SIGSEGV, not somebody else's memory; in a child, since it ends it.
__attribute__((noinline)) static int Overflow(volatile int depth) {
  volatile char frame[1024];
  frame[0] = (char)depth;
  return depth < 0 ? 0 : Overflow(depth + 1) + frame[0];
}
static void* Overflows(void* arg) {
  Overflow(0);
  return arg;
}
static void* Parks(void* arg) {
  while (sem_wait(&sem) != 0) {
  }
  return arg;
}
static void Guards(const char* name) {
  (void)name;
  for (size_t guard = 4096; guard <= 65536; guard *= 4) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      pthread_attr_t attr;
      pthread_t t;
      size_t got;
      CHECK_EQ(dup2(open("/dev/null", O_WRONLY), 2), 2);  // the library says what happened
      signal(SIGSEGV, SIG_DFL);
      // Neighbours on both sides.
      pthread_attr_init(&attr);
      CHECK_EQ(pthread_attr_setstacksize(&attr, 128 << 10), 0);
      CHECK_EQ(pthread_attr_setguardsize(&attr, guard), 0);
      CHECK(pthread_attr_getguardsize(&attr, &got) == 0 && got == guard);
      for (int i = 0; i < 20; i++) CHECK_EQ(pthread_create(&t, &attr, Parks, NULL), 0);
      CHECK_EQ(pthread_create(&t, &attr, Overflows, NULL), 0);
      for (int i = 0; i < 20; i++) CHECK_EQ(pthread_create(&t, &attr, Parks, NULL), 0);
      Join(t);
      _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status 0x%x", status);
  }
}

// Stacks are used again: what one thread has touched does not stay in memory for ever.
static void* Touches(void* arg) {
  volatile char* block = __builtin_alloca(4 << 20);
  for (size_t i = 0; i < 4 << 20; i += 4096) block[i] = 1;
  return arg;
}
static void Again(const char* name) {
  (void)name;
  for (int i = 0; i < 200; i++) Join(Start(Touches, NULL));
  CHECK_MSG(RssKb() < 200 << 10, "%ld kB after 200 threads of 4 MiB, one at a time", RssKb());
}

int main(int argc, char** argv) {
  sem_init(&sem, 0, 0);
  static const Part parts[] = {
      {"minimum", Minimum}, {"own", Own}, {"large", Large}, {"guards", Guards}, {"again", Again}};
  return RUN_PARTS(parts);
}
