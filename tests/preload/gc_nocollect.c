// SPDX-License-Identifier: Apache-2.0
// Modules whose objects are never collected: a library hides all its pointers. What it allocates,
// by itself or through libc, stays, and so does what these objects point to, also after another
// module moved them. What the program drops is found as ever.
// run: env=UNDERGO=nocollect=hider.so
// run: name=poison env=UNDERGO=gc=poison,nocollect=libnone.so:hider
// run: name=stw env=UNDERGO=gc=poison,nocollect=hider env=GODEBUG=gcstoptheworld=1
// native: no
// timeout: 60
#include "gc.h"

static int (*make)(int, void*);
static void* (*look)(int);
static void (*move)(int, void* (*)(void*, size_t));
static void (*drop)(int);
static int ways;

static NOINLINE void MakeAll(Held* held) {
  for (int i = 0; i < ways; i++) CHECK_EQ(make(i, MakeHeld(held, i)), 0);
}
static NOINLINE void LookAtAll(Held* held, const char* when) {
  for (int i = 0; i < ways; i++) {
    CHECK_MSG(look(i) == Reveal(held->hidden[i]), "%s: way %d was lost", when, i);
    CheckObject(Reveal(held->hidden[i]), (uint64_t)i + 1, when);
  }
}

int main(void) {
  NEED_GC();
  void* library = dlopen(PluginPath("hider"), RTLD_NOW | RTLD_LOCAL);
  CHECK_MSG(library, "dlopen: %s", dlerror());
  make = (int (*)(int, void*))dlsym(library, "HiderMake");
  look = (void* (*)(int))dlsym(library, "HiderLook");
  move = (void (*)(int, void* (*)(void*, size_t)))dlsym(library, "HiderMove");
  drop = (void (*)(int))dlsym(library, "HiderDrop");
  ways = ((int (*)(void))dlsym(library, "HiderWays"))();
  static Held held;
  MakeAll(&held);
  CollectHard("made");
  LookAtAll(&held, "made");
  for (int i = 0; i < ways; i++) move(i, realloc);
  CollectHard("moved");
  LookAtAll(&held, "moved");
  // Freed by the program, as any object.
  for (int i = 0; i < ways; i++) drop(i), free(Reveal(held.hidden[i]));
  // Its slots serve the program then, and are collected.
  CollectHard("dropped");
  CHECK(GcStats()->gc_hidden_frees == 0);
  puts("all right");
  return 0;
}
