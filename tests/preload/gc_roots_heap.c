// SPDX-License-Identifier: Apache-2.0
// Objects that only other heap objects hold: large ones, aligned ones, grown by realloc, from
// calloc, deep lists, wide trees, cycles, and what the C library keeps for the program.
// run:
// run: name=poison env=UNDERGO=gc=poison
// timeout: 60
#include <search.h>

#include "gc.h"

static Held held;
static void** holder;

// The objects spread evenly over the block, the last one in its last word.
static NOINLINE void Spread(size_t bytes) {
  const size_t words = bytes / sizeof(void*);
  for (size_t i = 0; i < kHeld; i++)
    holder[(words - 1) * i / (kHeld - 1)] = MakeHeld(&held, (int)i);
}
static void TryHolder(void* block, size_t bytes, const char* name) {
  CHECK_MSG(block, "%s: no memory", name);
  holder = block;
  block = NULL;
  Spread(bytes);
  CollectHard(name);
  CheckHeld(&held, name);
  free(holder);
  holder = NULL;
}

static void Large(const char* name) { TryHolder(calloc(1, 100 << 20), 100 << 20, name); }
static void LargeOdd(const char* name) { TryHolder(calloc(1, 1234568), 1234568, name); }
static void Calloc(const char* name) { TryHolder(calloc(100, 100), 10000, name); }
static void Memalign(const char* name) {
  for (size_t align = 32; align <= 2 << 20; align *= 4) {
    void* p = memalign(align, 5000);
    CHECK(p);
    memset(p, 0, 5000);
    TryHolder(p, 5000, name);
  }
}
static void PosixMemalign(const char* name) {
  void* p = NULL;
  CHECK_EQ(posix_memalign(&p, 4096, 300000), 0);
  memset(p, 0, 300000);
  TryHolder(p, 300000, name);
}
static void AlignedAlloc(const char* name) {
  void* p = aligned_alloc(64, 640 * 8);
  CHECK(p);
  memset(p, 0, 640 * 8);
  TryHolder(p, 640 * 8, name);
}

// The array grows from one word to all, by doubling, as vectors do: moved and in place.
static NOINLINE void Grow(void) {
  size_t capacity = 1;
  CHECK((holder = malloc(sizeof(void*))) != NULL);
  for (size_t i = 0; i < 40 * kHeld; i++) {
    if (i == capacity) {
      capacity *= 2;
      CHECK((holder = realloc(holder, capacity * sizeof(void*))) != NULL);
    }
    holder[i] = i % 40 == 39 ? MakeHeld(&held, (int)(i / 40)) : NULL;
  }
}
static void Realloc(const char* name) {
  Grow();
  CollectHard(name);
  CheckHeld(&held, name);
  free(holder);
}
// A block of many megabytes that moves while it grows.
static void ReallocLarge(const char* name) {
  CHECK((holder = calloc(1, 8 << 20)) != NULL);
  Spread(8 << 20);
  for (size_t megabytes = 16; megabytes <= 64; megabytes *= 2) {
    void* between = malloc(3 << 20);
    CHECK((holder = realloc(holder, megabytes << 20)) != NULL);
    CollectOnce();
    free(between);
  }
  CollectHard(name);
  CheckHeld(&held, name);
  free(holder);
}
// Shrunk in place: what lies behind is the next object's.
static void ReallocShrunk(const char* name) {
  CHECK((holder = calloc(1, 1 << 20)) != NULL);
  Spread(600);
  CHECK((holder = realloc(holder, 600)) != NULL);
  CollectHard(name);
  CheckHeld(&held, name);
  free(holder);
}

typedef struct Node {
  struct Node* next;
  void* object;
} Node;
static Node* list;
static NOINLINE void MakeList(int length) {
  for (int i = 0; i < length; i++) {
    Node* node = malloc(sizeof *node);
    CHECK(node);
    node->next = list;
    node->object = i % (length / kHeld) == 0 ? MakeHeld(&held, i / (length / kHeld)) : NULL;
    list = node;
  }
}
// As deep as a marker that recurses cannot go.
static void DeepList(const char* name) {
  MakeList(kHeld * 10000);
  CollectHard(name);
  int length = 0;
  for (Node* node = list; node; length++) {
    Node* next = node->next;
    free(node);
    node = next;
  }
  CHECK_EQ(length, kHeld * 10000);
  list = NULL;
  CheckHeld(&held, name);
}
static void Ring(const char* name) {
  MakeList(kHeld * 100);
  Node* last = list;
  while (last->next) last = last->next;
  last->next = list;
  list = last;  // any of them holds all
  last = NULL;
  CollectHard(name);
  CheckHeld(&held, name);
  Node* node = list->next;
  while (node != list) {
    Node* next = node->next;
    free(node);
    node = next;
  }
  free(list);
  list = NULL;
}

// Very many children of one object.
static void Wide(const char* name) {
  enum { kChildren = 200000 };
  CHECK((holder = malloc(kChildren * sizeof(void*))) != NULL);
  for (size_t i = 0; i < kChildren; i++) {
    CHECK((holder[i] = calloc(1, 40)) != NULL);
    if (i % (kChildren / kHeld) == 0 && i / (kChildren / kHeld) < kHeld)
      *(void**)holder[i] = MakeHeld(&held, (int)(i / (kChildren / kHeld)));
  }
  CollectHard(name);
  CheckHeld(&held, name);
  for (size_t i = 0; i < kChildren; i++) free(holder[i]);
  free(holder);
}

static int Compare(const void* a, const void* b) { return (a > b) - (a < b); }
static void* tree;
static NOINLINE void FillTree(void) {
  for (int i = 0; i < kHeld; i++) CHECK(tsearch(MakeHeld(&held, i), &tree, Compare));
}
static void Forget(void* p) { (void)p; }
// The C library's own objects: a binary tree whose nodes it allocates (with a tag in low bits).
static void LibcTree(const char* name) {
  FillTree();
  CollectHard(name);
  for (int i = 0; i < kHeld; i++) CHECK(tfind(Reveal(held.hidden[i]), &tree, Compare));
  tdestroy(tree, Forget);
  tree = NULL;
  CheckHeld(&held, name);
}
static void Environment(const char* name) {
  char key[40], value[100];
  for (int i = 0; i < 500; i++) {
    snprintf(key, sizeof key, "UNDERGO_TEST_%d", i);
    snprintf(value, sizeof value, "the value of the variable with the number %d", i);
    CHECK_EQ(setenv(key, value, 1), 0);
  }
  FILE* stream = tmpfile();
  CHECK(stream && fputs("kept in the buffer of a stream", stream) >= 0);
  CollectHard(name);
  for (int i = 0; i < 500; i++) {
    snprintf(key, sizeof key, "UNDERGO_TEST_%d", i);
    snprintf(value, sizeof value, "the value of the variable with the number %d", i);
    const char* is = getenv(key);
    CHECK_MSG(is && !strcmp(is, value), "%s: %s is %s", name, key, is ? is : "gone");
  }
  rewind(stream);
  CHECK(fgets(value, sizeof value, stream) && !strcmp(value, "kept in the buffer of a stream"));
  fclose(stream);
}

static const Part parts[] = {{"large", Large},
                             {"large-odd", LargeOdd},
                             {"calloc", Calloc},
                             {"memalign", Memalign},
                             {"posix-memalign", PosixMemalign},
                             {"aligned-alloc", AlignedAlloc},
                             {"realloc", Realloc},
                             {"realloc-large", ReallocLarge},
                             {"realloc-shrunk", ReallocShrunk},
                             {"deep-list", DeepList},
                             {"ring", Ring},
                             {"wide", Wide},
                             {"libc-tree", LibcTree},
                             {"libc-environment", Environment}};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
