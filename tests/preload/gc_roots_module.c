// SPDX-License-Identifier: Apache-2.0
// Objects that only a library loaded at run time holds, or only thread-local memory of a thread:
// words of the program, of that library, values of keys, and what a thread gets and returns.
// run:
// run: name=poison env=UNDERGO=gc=poison
// timeout: 60
#include <pthread.h>
#include <stdatomic.h>

#include "gc.h"

static Held held;
static void** (*words_of)(int kind);
static void* library;

static void Open(void) {
  library = dlopen(PluginPath("keeper"), RTLD_NOW | RTLD_LOCAL);
  CHECK_MSG(library, "dlopen: %s", dlerror());
  CHECK((words_of = (void** (*)(int))dlsym(library, "KeeperWords")) != NULL);
}
static NOINLINE void Store(void** words) {
  for (int i = 0; i < kHeld; i++) words[i] = MakeHeld(&held, i);
}
static void KeepIn(void** words, const char* name) {
  Store(words);
  CollectHard(name);
  for (int i = 0; i < kHeld; i++) CHECK(words[i] == Reveal(held.hidden[i]));
  CheckHeld(&held, name);
  memset(words, 0, kHeld * sizeof *words);
}
static void Library(const char* name) {
  for (int kind = 0; kind < 3; kind++) {
    Open();
    KeepIn(words_of(kind), name);
    CHECK_EQ(dlclose(library), 0);
  }
}
// A second copy in a namespace of its own, with a C library of its own.
static void Namespace(const char* name) {
  library = dlmopen(LM_ID_NEWLM, PluginPath("keeper"), RTLD_NOW);
  CHECK_MSG(library, "dlmopen: %s", dlerror());
  CHECK((words_of = (void** (*)(int))dlsym(library, "KeeperWords")) != NULL);
  KeepIn(words_of(0), name);
  dlclose(library);
}

// A thread stores the objects by `store` and sleeps.
static pthread_barrier_t barrier;
static void (*store)(void);
static void* Sleeper(void* arg) {
  store();
  Scrub();
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return arg;
}
static void InThread(void (*by)(void), const char* name) {
  pthread_t t;
  store = by;
  CHECK_EQ(pthread_create(&t, NULL, Sleeper, NULL), 0);
  pthread_barrier_wait(&barrier);
  CollectHard(name);
  CheckHeld(&held, name);
  pthread_barrier_wait(&barrier);
  pthread_join(t, NULL);
}

static __thread void* own_words[kHeld];
static void StoreOwn(void) { Store(own_words); }
static void ThreadWords(const char* name) { InThread(StoreOwn, name); }
static void StoreLibrary(void) { Store(words_of(2)); }
static void LibraryThreadWords(const char* name) {
  Open();
  InThread(StoreLibrary, name);
  CHECK_EQ(dlclose(library), 0);
}
static pthread_key_t keys[kHeld];
static void StoreKeys(void) {
  for (int i = 0; i < kHeld; i++) CHECK_EQ(pthread_setspecific(keys[i], MakeHeld(&held, i)), 0);
}
// The first 32 lie in the thread's block, the others in memory that the C library allocates.
static void ThreadKeys(const char* name) {
  for (int i = 0; i < kHeld; i++) CHECK_EQ(pthread_key_create(&keys[i], NULL), 0);
  InThread(StoreKeys, name);
  for (int i = 0; i < kHeld; i++) pthread_key_delete(keys[i]);
}

// An argument that the thread looks at late, and a result that is fetched late.
static atomic_int look;
static void* LookLate(void* p) {
  while (!look) SleepMs(1);
  CheckObject(p, 3, "a thread's argument");
  free(p);
  return NewObject(4);
}
static NOINLINE void StartLooking(pthread_t* t) {
  CHECK_EQ(pthread_create(t, NULL, LookLate, NewObject(3)), 0);
}
static void ArgumentAndResult(const char* name) {
  pthread_t t;
  StartLooking(&t);
  CollectHard(name);
  look = 1;
  SleepMs(30);  // it has ended, and nobody has joined it
  CollectHard(name);
  void* p;
  CHECK_EQ(pthread_join(t, &p), 0);
  CheckObject(p, 4, "a thread's result");
  free(p);
}

// On a stack that the program made: in the heap, and in a mapping.
static void* OnStack(void* arg) {
  void* volatile objects[kHeld];
  for (int i = 0; i < kHeld; i++) objects[i] = MakeHeld(&held, i);
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < kHeld; i++) CHECK(objects[i] == Reveal(held.hidden[i]));
  return arg;
}
static NOINLINE void StartOnOwnStack(pthread_t* t, uintptr_t* stack) {
  enum { kStack = 256 << 10 };
  pthread_attr_t attributes;
  void* memory = aligned_alloc(4096, kStack);
  CHECK(memory);
  *stack = Hide(memory);
  CHECK_EQ(pthread_attr_init(&attributes), 0);
  CHECK_EQ(pthread_attr_setstack(&attributes, memory, kStack), 0);
  CHECK_EQ(pthread_create(t, &attributes, OnStack, NULL), 0);
  pthread_attr_destroy(&attributes);
}
static void OwnStack(const char* name) {
  pthread_t t;
  uintptr_t stack;
  StartOnOwnStack(&t, &stack);
  pthread_barrier_wait(&barrier);
  CollectHard(name);
  CheckHeld(&held, name);
  pthread_barrier_wait(&barrier);
  pthread_join(t, NULL);
  free(Reveal(stack));
}

static const Part parts[] = {
    {"library", Library},          {"namespace", Namespace},
    {"thread-words", ThreadWords}, {"library-thread-words", LibraryThreadWords},
    {"thread-keys", ThreadKeys},   {"argument-and-result", ArgumentAndResult},
    {"own-stack", OwnStack}};

int main(int argc, char** argv) {
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, 2), 0);
  return RUN_PARTS(parts);
}
