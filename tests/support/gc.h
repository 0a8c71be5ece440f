// SPDX-License-Identifier: Apache-2.0
// What the tests of the collector share: objects whose address the test knows only in a form that
// no collector can read, dropped objects as pressure and control, and forced collections.
//
// A test keeps objects in one place only, calls CollectHard, and looks at them by CheckHeld. In
// the mode `poison` a lost object was overwritten by then; in the others its free() proves the
// loss, and the library's line about that makes the run fail. CollectHard drops objects of its own
// and insists that nearly all of them were found: a collector that does nothing passes no test.
// Over the C library's malloc and with gc=off the programs run the same way and only prove
// themselves.
#ifndef UNDERGO_TESTS_GC_H_
#define UNDERGO_TESTS_GC_H_

#include <pthread.h>
#include <undergo/undergo.h>

#include "parts.h"

#define NOINLINE __attribute__((noinline))

enum { kObjectBytes = 200, kHeld = 64, kPressure = 6000 };

// True when a collector can be asked: the library is there and its mode is not `off`.
__attribute__((unused)) static int GcWorks(void) {
  return UnderPreload() && undergo_gc != NULL && undergo_gc() == 0;
}
// For programs that make no sense without a collector.
#define NEED_GC() \
  if (!GcWorks()) SKIP("no collector here")

__attribute__((unused)) static struct undergo_stats* GcStats(void) {
  static struct undergo_stats s;
  memset(&s, 0, sizeof s);
  if (undergo_read_stats) undergo_read_stats(&s, sizeof s);
  return &s;
}
// Objects that the collector has found to be garbage so far: condemned ones count, they are free
// one cycle later.
__attribute__((unused)) static uint64_t Recalled(void) {
  const struct undergo_stats* s = GcStats();
  return s->gc_probation_objects + s->gc_reclaimed_objects;
}

// Clears the dead part of the stack, where copies of dropped pointers may lie.
__attribute__((unused)) static NOINLINE void Scrub(void) {
  char dead[96 << 10];
  memset(dead, 0, sizeof dead);
  __asm__ volatile("" ::"r"(dead) : "memory");
}

// An address in a form that is no pointer under any rule of the collector.
static inline uintptr_t Hide(const void* p) {
  uintptr_t hidden = ~(uintptr_t)p;
  __asm__ volatile("" : "+r"(hidden));
  return hidden;
}
static inline void* Reveal(uintptr_t hidden) {
  __asm__ volatile("" : "+r"(hidden));
  return (void*)~hidden;
}

__attribute__((unused)) static NOINLINE void* NewObject(uint64_t tag) {
  void* p = malloc(kObjectBytes);
  CHECK(p);
  Fill(p, kObjectBytes, tag);
  return p;
}
__attribute__((unused)) static NOINLINE void CheckObject(const void* p, uint64_t tag,
                                                         const char* place) {
  size_t bad = Verify(p, kObjectBytes, tag);
  CHECK_MSG(bad == kObjectBytes, "%s: object %llu was lost: byte %zu differs", place,
            (unsigned long long)tag, bad);
}

// The hidden addresses of the objects that a test keeps elsewhere.
typedef struct Held {
  uintptr_t hidden[kHeld];
} Held;
__attribute__((unused)) static NOINLINE void* MakeHeld(Held* held, int i) {
  void* p = NewObject((uint64_t)i + 1);
  held->hidden[i] = Hide(p);
  return p;
}
// All are intact; frees them.
__attribute__((unused)) static NOINLINE void CheckHeld(Held* held, const char* place) {
  for (int i = 0; i < kHeld; i++) CheckObject(Reveal(held->hidden[i]), (uint64_t)i + 1, place);
  for (int i = 0; i < kHeld; i++) free(Reveal(held->hidden[i]));
  Scrub();
}

// Makes objects of the tests' size and drops them, so that a slot that was freed by mistake is
// written to. One in four is freed, as in ordinary programs.
__attribute__((unused)) static NOINLINE void Pressure(void) {
  for (int i = 0; i < kPressure; i++) {
    void* p = malloc(kObjectBytes);
    CHECK(p);
    memset(p, 0xa5, kObjectBytes);
    if (i % 4 == 3) free(p);
  }
}

__attribute__((unused)) static void CollectOnce(void) {
  Scrub();
  if (UnderPreload() && undergo_gc != NULL) undergo_gc();
}

// Three collections, with pressure before, between and after them.
__attribute__((unused)) static NOINLINE void CollectHard(const char* place) {
  static int works = -1;
  if (works < 0) works = GcWorks();
  const uint64_t before = works ? Recalled() : 0;
  for (int round = 0; round < 3; round++) {
    Pressure();
    CollectOnce();
  }
  const uint64_t recalled = works ? Recalled() - before : 0, dropped = 3 * kPressure * 3 / 4;
  CHECK_MSG(!works || recalled >= dropped * 9 / 10,
            "%s: the collector found %llu of %llu dropped objects", place,
            (unsigned long long)recalled, (unsigned long long)dropped);
  Pressure();
}

// A thread that collects all the time, for programs that do something else meanwhile.
static volatile int collector_stop;
static pthread_t collector_thread;
__attribute__((unused)) static void* CollectAlways(void* arg) {
  while (!collector_stop) {
    if (undergo_gc != NULL) undergo_gc();
    SleepMs(1);
  }
  return arg;
}
__attribute__((unused)) static void StartCollector(void) {
  CHECK_EQ(pthread_create(&collector_thread, NULL, CollectAlways, NULL), 0);
}
// At least so many collections ended meanwhile.
__attribute__((unused)) static void StopCollector(unsigned least) {
  collector_stop = 1;
  pthread_join(collector_thread, NULL);
  collector_stop = 0;
  const struct undergo_stats* s = GcStats();
  CHECK_MSG(!GcWorks() || s->num_gc >= least, "only %llu collections",
            (unsigned long long)s->num_gc);
}

// Live objects of many sizes in one list, as what must not be lost while other things go on.
typedef struct Live {
  struct Live* next;
  size_t size;
  unsigned char bytes[];
} Live;
__attribute__((unused)) static NOINLINE Live* MakeLive(int count, uint64_t seed) {
  Random r = {seed * 2 + 1};
  Live* list = NULL;
  for (int i = 0; i < count; i++) {
    size_t size = Below(&r, 20) ? 8 + Below(&r, 300) : 8 + Below(&r, 20000);
    Live* live = (Live*)malloc(sizeof *live + size);
    CHECK(live);
    live->next = list;
    live->size = size;
    Fill(live->bytes, size, size + seed);
    list = live;
  }
  return list;
}
__attribute__((unused)) static NOINLINE void CheckLive(const Live* list, int count, uint64_t seed) {
  for (; list; list = list->next, count--)
    CHECK_MSG(count > 0 && list->size < 30000 &&
                  Verify(list->bytes, list->size, list->size + seed) == list->size,
              "a live object was lost");
  CHECK_MSG(count == 0, "%d live objects were lost", count);
}
// Allocates and drops; the size is anything small.
__attribute__((unused)) static NOINLINE void Leak(int count) {
  for (int i = 0; i < count; i++) {
    void* volatile p = malloc(16 + (size_t)(i % 60) * 8);
    CHECK(p);
    memset(p, 0xa5, 16);
  }
}

#endif  // UNDERGO_TESTS_GC_H_
