// SPDX-License-Identifier: Apache-2.0
// UNDERGO=gc=quarantine: what was freed is not used again while a pointer to it exists, and is when
// there is none; what was not freed is never reclaimed. Second frees are found however much time
// has passed.
// run: name=stay env=UNDERGO=gc=quarantine stay
// run: name=stw env=UNDERGO=gc=quarantine env=GODEBUG=gcstoptheworld=1 stay
// run: name=lost env=UNDERGO=gc=quarantine lost
// run: name=churn env=UNDERGO=gc=quarantine churn
// run: name=threads env=UNDERGO=gc=quarantine threads
// run: name=twice env=UNDERGO=gc=quarantine,badfree=ignore twice stderr=double free 0x.*class 112
// run: name=large env=UNDERGO=gc=quarantine,badfree=ignore twice-large stderr=double free 0x.*large
// run: name=realloc env=UNDERGO=gc=quarantine,badfree=ignore realloc stderr=realloc.*freed object
// native: no
// timeout: 60
#include "gc.h"

enum { kDangling = 300 };
static unsigned char* dangling[kDangling];
static size_t sizes[kDangling];

static NOINLINE void FreeAll(void) {
  for (int i = 0; i < kDangling; i++) {
    sizes[i] = i % 30 == 29 ? 200000 : 16 + (size_t)i * 7;
    dangling[i] = malloc(sizes[i]);
    CHECK(dangling[i]);
    Fill(dangling[i], sizes[i], (uint64_t)i);
    free(dangling[i]);
  }
}
// Of the same sizes, so that slots would be used again.
static NOINLINE void Churn(int rounds) {
  for (int r = 0; r < rounds; r++) {
    size_t size = r % 30 == 29 ? 200000 : 16 + (size_t)(r % kDangling) * 7;
    unsigned char* p = malloc(size);
    CHECK(p);
    memset(p, 0x77, size);
    for (int i = 0; r % 50 == 0 && i < kDangling; i++)
      CHECK_MSG(p + size <= dangling[i] || p >= dangling[i] + sizes[i], "slot %d was used again",
                i);
    free(p);
  }
}
static void Stay(const char* name) {
  (void)name;
  FreeAll();
  for (int i = 0; i < 5; i++) {
    Churn(20000);
    CollectOnce();
  }
  for (int i = 0; i < kDangling; i++)
    CHECK_MSG(Verify(dangling[i], sizes[i], (uint64_t)i) == sizes[i], "object %d changed", i);
  // Without pointers they go.
  uint64_t before = GcStats()->gc_reclaimed_objects;
  memset(dangling, 0, sizeof dangling);
  CollectOnce();
  CollectOnce();
  CHECK_MSG(GcStats()->gc_reclaimed_objects - before >= kDangling * 9 / 10, "only %llu went",
            (unsigned long long)(GcStats()->gc_reclaimed_objects - before));
}

static uintptr_t hidden[100];
static void Lost(const char* name) {
  for (int i = 0; i < 100; i++) hidden[i] = Hide(NewObject((uint64_t)i));
  for (int i = 0; i < 4; i++) {
    CollectOnce();
    Churn(3000);
  }
  for (int i = 0; i < 100; i++) CheckObject(Reveal(hidden[i]), (uint64_t)i, name);
  for (int i = 0; i < 100; i++) free(Reveal(hidden[i]));
}

// Gigabytes through a small heap: it stays small.
static void ChurnMuch(const char* name) {
  (void)name;
  for (int i = 0; i < 200000; i++) {
    size_t size = i % 2000 == 0 ? 3000000 : 1000 + (size_t)(i % 17) * 900;
    char* p = malloc(size);
    CHECK(p);
    p[0] = p[size - 1] = 1;
    free(p);
  }
  uint64_t inuse = GcStats()->heap_inuse;
  CHECK_MSG(inuse < (64u << 20), "%llu bytes in spans", (unsigned long long)inuse);
}

static void* Worker(void* arg) {
  Random r = {(uint64_t)(uintptr_t)arg * 2 + 1};
  Live* list = NULL;
  for (int round = 0; round < 30; round++) {
    list = MakeLive(1000, (uint64_t)round);
    CheckLive(list, 1000, (uint64_t)round);
    while (list) {
      Live* next = list->next;
      free(list);
      list = next;
    }
  }
  (void)r;
  return arg;
}
static void Threads(const char* name) {
  (void)name;
  pthread_t t[4];
  for (uintptr_t i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, Worker, (void*)i), 0);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}

static void Twice(const char* name) {
  (void)name;
  char* volatile p = malloc(100);
  free(p);
  Churn(1000);
  free(p);
}
static void TwiceLarge(const char* name) {
  (void)name;
  char* volatile p = malloc(1000000);
  free(p);
  Churn(1000);
  free(p);
}
static void Realloc(const char* name) {
  (void)name;
  char* volatile p = malloc(100);
  free(p);
  CHECK(realloc(p, 5000) == NULL);
}

static const Part parts[] = {{"stay", Stay},       {"lost", Lost},   {"churn", ChurnMuch},
                             {"threads", Threads}, {"twice", Twice}, {"twice-large", TwiceLarge},
                             {"realloc", Realloc}};
int main(int argc, char** argv) {
  NEED_GC();
  return RUN_PARTS(parts);
}
