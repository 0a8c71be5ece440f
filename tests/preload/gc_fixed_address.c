// SPDX-License-Identifier: Apache-2.0
// An executable at a fixed address that takes the addresses of malloc and its kin, as Debian's
// python3 does: they are stubs inside of it, which is not to say that it brings its own.
// build: -fno-pie -no-pie
// run:
// run: name=poison env=UNDERGO=gc=poison
#include "gc.h"

static const struct {
  void* (*allocate)(size_t);
  void* (*clear)(size_t, size_t);
  void* (*resize)(void*, size_t);
  void (*release)(void*);
} functions = {malloc, calloc, realloc, free};

int main(void) {
  __asm__ volatile("" ::"r"(&functions) : "memory");
  void* p = functions.resize(functions.clear(1, 100), 1000);
  CHECK(p && functions.allocate(10));
  functions.release(p);
  // The linker makes weak references of such an executable null.
  int (*collect)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "undergo_gc");
  int (*read_stats)(struct undergo_stats*, size_t) =
      (int (*)(struct undergo_stats*, size_t))dlsym(RTLD_DEFAULT, "undergo_read_stats");
  if (!collect) return 0;
  static struct undergo_stats s;
  Pressure();
  Scrub();
  CHECK_MSG(collect() == 0 && collect() == 0, "the collector is off");
  CHECK_EQ(read_stats(&s, sizeof s), 0);
  CHECK_EQ(s.enable_gc, 1);
  uint64_t found = s.gc_probation_objects + s.gc_reclaimed_objects;
  CHECK_MSG(found > kPressure / 2, "%llu objects found", (unsigned long long)found);
  return 0;
}
