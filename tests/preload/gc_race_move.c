// SPDX-License-Identifier: Apache-2.0
// Pointers that move all the time while collections run: from one place to another, with the old
// place cleared at once, so that each object is always held by exactly one word, somewhere. A
// marker that misses one write loses one. Threads swap, exchange, copy by memcpy, memmove and
// `rep movs`, push and pop lists, through heap memory, mappings, stacks and thread-local words.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=small env=GOGC=5 1
// run: name=checked env=GODEBUG=gccheckmark=1 1
// run: name=stopped env=GODEBUG=gcstoptheworld=1 1
// run: name=long pace=long 10
// run: name=poison_long pace=long env=UNDERGO=gc=poison 10
// run: name=checked_long pace=long env=GODEBUG=gccheckmark=1 10
// timeout: 90
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "gc.h"

enum { kThreads = 6, kSlots = 300, kBytes = 48 };

// An object knows its number; its second word is the number mixed, so that a slot that was reused
// or cleared shows. The links are for the lists.
typedef struct Object {
  uint64_t number, mixed;
  struct Object* next;
  uint64_t padding[3];
} Object;
_Static_assert(sizeof(Object) == kBytes, "one size class");

static uint64_t Mixed(uint64_t number) { return number * 0x9e3779b97f4a7c15u ^ 0x5bf0363; }

static atomic_int stop;
static atomic_ulong moves, objects_made;
static _Atomic(Object*) mailbox[64];    // objects pass between threads here
static _Atomic(Object*)* heap_mailbox;  // and here, in a heap block

static NOINLINE Object* Make(void) {
  Object* o = malloc(sizeof *o);
  CHECK(o);
  o->number = atomic_fetch_add(&objects_made, 1);
  o->mixed = Mixed(o->number);
  o->next = NULL;
  return o;
}
static void Look(const Object* o) {
  CHECK_MSG(o->mixed == Mixed(o->number), "an object was lost: number %#llx, then %#llx",
            (unsigned long long)o->number, (unsigned long long)o->mixed);
}

static __thread Object* local[kSlots];

// Two arrays between which a thread's objects wander; which array is in use changes.
static NOINLINE void CopyAll(Object** to, Object** from, uint64_t how) {
  const size_t bytes = kSlots * sizeof *from;
  switch (how % 3) {
    case 0: memcpy(to, from, bytes); break;
    case 1: memmove(to, from, bytes); break;
    default: {
      size_t count = kSlots;
      Object **t = to, **f = from;
      __asm__ volatile("rep movsq" : "+D"(t), "+S"(f), "+c"(count) : : "memory");
    }
  }
  memset(from, 0, bytes);
}
// Element by element, backwards and forwards: against the direction in which a marker may go.
static NOINLINE void MoveEach(Object** to, Object** from, int backwards) {
  for (int i = 0; i < kSlots; i++) {
    int k = backwards ? kSlots - 1 - i : i;
    Object* o = from[k];
    from[k] = NULL;
    to[kSlots - 1 - k] = o;
  }
}

static void Exchange(Object** place, Random* r) {
  _Atomic(Object*)* box = Below(r, 2) ? &mailbox[Below(r, 64)] : &heap_mailbox[Below(r, 64)];
  Object* mine = *place;
  *place = NULL;  // now only a register holds it
  *place = atomic_exchange(box, mine);
  if (*place)
    Look(*place);
  else
    *place = Make();
}

static void* Work(void* seed) {
  Random r = {(uint64_t)(uintptr_t)seed * 77 + 3};
  const size_t bytes = kSlots * sizeof(Object*);
  Object* on_stack[kSlots];
  Object** in_map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(in_map != MAP_FAILED);
  Object** place = calloc(1, bytes);
  CHECK(place);
  for (int i = 0; i < kSlots; i++) place[i] = Make();
  Object* list = NULL;
  while (!stop) {
    // One of five places next; the heap place is a new block each time, the old one is freed.
    Object** old = place;
    const uint64_t where = Below(&r, 5);
    Object** next = where == 0 ? on_stack : where == 1 ? in_map + 64 * Below(&r, 1000) : local;
    if (where >= 3) {
      next = where == 3 ? malloc(bytes) : malloc(200000);
      CHECK(next);
    }
    if (next == old ||
        (next >= in_map && next < in_map + (1 << 17) && old >= in_map && old < in_map + (1 << 17)))
      continue;
    const uint64_t how = Below(&r, 6);
    if (how < 3)
      CopyAll(next, old, how);
    else
      MoveEach(next, old, how & 1);
    if (old != on_stack && old != local && !(old >= in_map && old < in_map + (1 << 17))) free(old);
    place = next;
    for (int i = 0; i < 20; i++) Exchange(&place[Below(&r, kSlots)], &r);
    // Half of the objects into a list, which is then turned round and emptied.
    for (int i = 0; i < kSlots; i += 2) {
      place[i]->next = list;
      list = place[i];
      place[i] = NULL;
    }
    Object* turned = NULL;
    while (list) {
      Object* o = list;
      Look(o);
      list = o->next;
      o->next = turned;
      turned = o;
    }
    for (int i = 0; i < kSlots; i += 2) {
      place[i] = turned;
      turned = turned->next;
      place[i]->next = NULL;
    }
    // A few die: freed, or dropped for the collector.
    for (int i = 0; i < 6; i++) {
      Object** dying = &place[Below(&r, kSlots)];
      Look(*dying);
      if (i % 2) free(*dying);
      *dying = Make();
    }
    atomic_fetch_add_explicit(&moves, kSlots, memory_order_relaxed);
  }
  for (int i = 0; i < kSlots; i++) {
    Look(place[i]);
    free(place[i]);
  }
  return NULL;
}

static void* Collect(void* arg) {
  while (!stop) {
    if (undergo_gc) undergo_gc();
    SleepMs(2);
  }
  return arg;
}

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 2;
  CHECK((heap_mailbox = calloc(64, sizeof *heap_mailbox)) != NULL);
  pthread_t worker[kThreads], collector;
  for (size_t i = 0; i < kThreads; i++)
    CHECK_EQ(pthread_create(&worker[i], NULL, Work, (void*)(i + 1)), 0);
  CHECK_EQ(pthread_create(&collector, NULL, Collect, NULL), 0);
  SleepMs((long)(seconds * 1000));
  stop = 1;
  for (int i = 0; i < kThreads; i++) pthread_join(worker[i], NULL);
  pthread_join(collector, NULL);
  for (int i = 0; i < 64; i++) {
    if (mailbox[i]) Look(mailbox[i]);
    if (heap_mailbox[i]) Look(heap_mailbox[i]);
    free(mailbox[i]);
    free(heap_mailbox[i]);
  }
  CHECK_MSG(moves > 10000, "only %lu moves", (unsigned long)moves);
  CHECK_MSG(!GcWorks() || GcStats()->num_gc >= 2, "only %llu collections",
            (unsigned long long)GcStats()->num_gc);
  puts("all right");
  return 0;
}
