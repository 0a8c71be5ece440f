// SPDX-License-Identifier: Apache-2.0
// Programs protect and unmap parts of what malloc gave them. The collector reads these objects
// without a fault and hands no page that nobody can use to the next owner.
//   stacks   coroutines on malloc'ed stacks with guard pages, their objects only on these stacks
//   sealed   pointers on pages that the program protected against itself, by every call that does
//   dropped  objects that are leaked with guards in them
//   mapped   guards in mappings of the program, which are roots, beside pointers
//   storm    threads that make and drop such stacks while collections run
// run: name=stacks stacks
// run: name=sealed sealed
// run: name=dropped env=GOGC=20 dropped
// run: name=mapped mapped
// run: name=mapped_stopped env=GODEBUG=gcstoptheworld=1 mapped
// run: name=storm storm
// run: name=storm_poison env=UNDERGO=gc=poison storm
// run: name=storm_stopped env=GODEBUG=gcstoptheworld=1 storm
// run: name=fork fork
// timeout: 90
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "gc.h"

enum { kPage = 4096, kCoroutines = 40, kGuardInstall = 102 };

static void* Pages(size_t pages) {
  void* p = NULL;
  CHECK_EQ(posix_memalign(&p, kPage, pages * kPage), 0);
  memset(p, 0, pages * kPage);
  return p;
}

typedef struct Coroutine {
  ucontext_t here, caller;
  char* stack;
  size_t pages;
  int seed, steps;
} Coroutine;

static void Body(unsigned low, unsigned high) {
  Coroutine* c = (Coroutine*)((uintptr_t)high << 32 | low);
  Live* volatile live = MakeLive(20, (uint64_t)c->seed);
  for (;;) {
    swapcontext(&c->here, &c->caller);
    CheckLive(live, 20, (uint64_t)c->seed);
    if (++c->steps % 3 == 0) live = MakeLive(20, (uint64_t)c->seed);
  }
}

static void Guard(char* at, int kind) {
  if (kind == 1 && madvise(at, kPage, kGuardInstall) == 0) return;
  CHECK_EQ(mprotect(at, kPage, PROT_NONE), 0);
}

static Coroutine* NewCoroutine(int seed) {
  Coroutine* c = calloc(1, sizeof *c);
  CHECK(c);
  c->seed = seed;
  c->pages = seed % 3 == 0 ? 8 : seed % 3 == 1 ? 17 : 64;
  c->stack = Pages(c->pages);
  Guard(c->stack, seed % 2);
  CHECK_EQ(getcontext(&c->here), 0);
  c->here.uc_stack.ss_sp = c->stack + kPage;
  c->here.uc_stack.ss_size = (c->pages - 1) * kPage;
  c->here.uc_link = NULL;
  uintptr_t self = (uintptr_t)c;
  makecontext(&c->here, (void (*)(void))Body, 2, (unsigned)self, (unsigned)(self >> 32));
  return c;
}
static NOINLINE void Step(Coroutine* c) { CHECK_EQ(swapcontext(&c->caller, &c->here), 0); }

static void Stacks(const char* name) {
  Coroutine* all[kCoroutines];
  for (int i = 0; i < kCoroutines; i++) Step(all[i] = NewCoroutine(i));
  for (int round = 0; round < 5; round++) {
    CollectHard(name);
    for (int i = 0; i < kCoroutines; i++) Step(all[i]);
  }
  for (int i = 0; i < kCoroutines; i++) {
    CHECK_EQ(mprotect(all[i]->stack, kPage, PROT_READ | PROT_WRITE), 0);
    madvise(all[i]->stack, kPage, kGuardInstall + 1);
    free(all[i]->stack);
  }
}

// The objects are held by words on the middle page of three only.
typedef struct Sealed {
  char* block;
  Held held;
} Sealed;
static NOINLINE void MakeSealed(Sealed* s, size_t pages) {
  s->block = Pages(pages);
  void** words = (void**)(s->block + kPage);
  for (int i = 0; i < kHeld; i++) words[i] = MakeHeld(&s->held, i);
}
static void SealedBy(const char* name, int prot, size_t pages) {
  Sealed s;
  MakeSealed(&s, pages);
  CHECK_EQ(mprotect(s.block + kPage, kPage, prot), 0);
  CollectHard(name);
  CheckHeld(&s.held, name);
  CHECK_EQ(mprotect(s.block + kPage, kPage, PROT_READ | PROT_WRITE), 0);
  free(s.block);
}
static void SealedParts(const char* name) {
  for (size_t pages = 4; pages <= 256; pages *= 4) {
    SealedBy(name, PROT_NONE, pages);
    SealedBy(name, PROT_READ, pages);
    SealedBy(name, PROT_WRITE, pages);
  }
  // What is mapped over a part counts as the program's own mapping, and as part of the object.
  Sealed s;
  MakeSealed(&s, 64);
  char* tail = s.block + 8 * kPage;
  CHECK(mmap(tail, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == tail);
  CHECK_EQ(munmap(tail + 8 * kPage, 8 * kPage), 0);
  char* moved = mremap(tail + 20 * kPage, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED,
                       tail + 8 * kPage);
  CHECK(moved == tail + 8 * kPage);
  CollectHard(name);
  CheckHeld(&s.held, name);
}

static NOINLINE void DropGuarded(int i) {
  char* p = Pages(i % 2 ? 4 : 40);
  Guard(p + kPage, i % 4 / 2);
}
static void Dropped(const char* name) {
  for (int i = 0; i < 200; i++) DropGuarded(i);
  for (int round = 0; round < 3; round++) {
    CollectHard(name);
    for (int i = 0; i < 2000; i++) {
      char* p = malloc(i % 2 ? 4 * kPage : 40 * kPage);
      CHECK(p);
      memset(p, 1, i % 2 ? 4 * kPage : 40 * kPage);
      if (i % 4 == 0) free(p);
    }
  }
}

static void Mapped(const char* name) {
  for (size_t pages = 4; pages <= 256; pages *= 4) {
    char* m = mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    memset(m, 0, pages * kPage);
    Held held;
    for (int i = 0; i < kHeld; i++) ((void**)(m + kPage))[i] = MakeHeld(&held, i);
    Guard(m, 1);
    Guard(m + 2 * kPage, 1);
    CollectHard(name);
    CheckHeld(&held, name);
    CHECK_EQ(munmap(m, pages * kPage), 0);
  }
}

static double end;
static void* StormThread(void* seed) {
  Random r = {(uint64_t)(uintptr_t)seed};
  while (Seconds() < end) {
    Coroutine* c = NewCoroutine((int)Below(&r, 1000));
    Step(c);
    Leak(300);
    Step(c);
    // Now and then nobody cleans up.
    if (Below(&r, 8) == 0) continue;
    CHECK_EQ(mprotect(c->stack, kPage, PROT_READ | PROT_WRITE), 0);
    madvise(c->stack, kPage, kGuardInstall + 1);
    free(c->stack);
    free(c);
  }
  return NULL;
}
static void Storm(const char* name) {
  (void)name;
  end = Seconds() + 2;
  StartCollector();
  pthread_t t[3];
  for (uintptr_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, StormThread, (void*)i), 0);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  StopCollector(5);
}

// A part that children do not inherit.
static void Forked(const char* name) {
  Sealed s;
  MakeSealed(&s, 64);
  CHECK_EQ(madvise(s.block + 4 * kPage, 8 * kPage, MADV_DONTFORK), 0);
  pid_t child = fork();
  CHECK(child >= 0);
  CollectHard(name);
  CheckHeld(&s.held, name);
  if (child == 0) _exit(0);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_MSG(status == 0, "the child ended with status %x", (unsigned)status);
}

static const Part parts[] = {
    {"stacks", Stacks}, {"sealed", SealedParts}, {"dropped", Dropped},
    {"mapped", Mapped}, {"storm", Storm},        {"fork", Forked},
};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
