// SPDX-License-Identifier: Apache-2.0
// With UNDERGO=unaligned=on pointers count at every byte: in globals, mappings and objects of all
// kinds, across the borders of the marker's blocks and of pages. Every offset from a word occurs.
// Without the option every part loses objects.
// run: env=UNDERGO=unaligned=on
// run: name=poison env=UNDERGO=unaligned=on,gc=poison
// run: name=checked env=UNDERGO=unaligned=on env=GODEBUG=gccheckmark=1
// run: name=snapshot env=UNDERGO=unaligned=on,gc=poison,tracking=snapshot
// run: name=stop env=UNDERGO=unaligned=on,gc=poison,tracking=stop
// timeout: 120
#include <sys/mman.h>

#include "gc.h"

enum { kPage = 4096, kBlock = 512, kBytes = (kHeld + 1) * kPage };

// Where pointer i begins.
typedef size_t Place(int i);
static size_t Anywhere(int i) { return (size_t)i * 509; }
static size_t AcrossBlocks(int i) { return (size_t)(i + 1) * kBlock - 1 - (size_t)i % 7; }
static size_t AcrossPages(int i) { return (size_t)(i + 1) * kPage - 1 - (size_t)i % 7; }
static Place* const places[] = {Anywhere, AcrossBlocks, AcrossPages};

static char global[kBytes];
static char* volatile area;  // what holds the pointers, where it is not `global`
static Held held;

static NOINLINE void Store(char* to, Place* place) {
  for (int i = 0; i < kHeld; i++) {
    void* p = MakeHeld(&held, i);
    memcpy(to + place(i), &p, sizeof p);
  }
}
static void TryEach(char* to, const char* name) {
  for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
    Store(to, places[k]);
    CollectHard(name);
    CheckHeld(&held, name);
    memset(to, 0, kBytes);
  }
}

static void InGlobal(const char* name) { TryEach(global, name); }
static void InMapping(const char* name) {
  area = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(area != MAP_FAILED);
  TryEach(area, name);
  munmap(area, kBytes);
  area = NULL;
}
static void InLarge(const char* name) {
  CHECK((area = calloc(1, kBytes)) != NULL);
  TryEach(area, name);
  free(area);
  area = NULL;
}

// One pointer in each object, `back` bytes before `border`, or so far behind its begin.
static void* objects[kHeld];
static NOINLINE void StoreInObjects(size_t size, size_t border) {
  for (int i = 0; i < kHeld; i++) {
    CHECK((objects[i] = calloc(1, size)) != NULL);
    size_t back = 1 + (size_t)i % 7;
    void* p = MakeHeld(&held, i);
    memcpy((char*)objects[i] + (border ? border - back : back), &p, sizeof p);
  }
}
static void InObjects(const char* name) {
  static const struct {
    size_t size, border;
  } kinds[] = {{24, 0},        {100, 0},       {600, 0},        {600, kBlock},  {3000, kBlock},
               {10000, kPage}, {20000, kPage}, {30000, kBlock}, {100000, kPage}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    StoreInObjects(kinds[k].size, kinds[k].border);
    CollectHard(name);
    CheckHeld(&held, name);
    for (int i = 0; i < kHeld; i++) free(objects[i]);
    memset(objects, 0, sizeof objects);
  }
}

// Pages that were found to be without pointers get some, while a collector is at work.
static void StoredLater(const char* name) {
  CHECK((area = calloc(1, kBytes)) != NULL);
  StartCollector();
  for (int round = 0; round < 20; round++) {
    Store(area, places[round % 3]);
    SleepMs(5);
    CheckHeld(&held, name);
    memset(area, 0, kBytes);
    SleepMs(5);
  }
  StopCollector(5);
  free(area);
  area = NULL;
}

static const Part parts[] = {{"global", InGlobal},
                             {"mapping", InMapping},
                             {"large", InLarge},
                             {"objects", InObjects},
                             {"stored-later", StoredLater}};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
