// SPDX-License-Identifier: Apache-2.0
// A program with a malloc of its own, as chromium has: nothing of it is ours to collect. Under
// gctrace one line says so.
// build: -rdynamic
// run:
// run: name=trace env=GODEBUG=gctrace=1 stderr=^undergo: collector off: .*malloc of its own$
// native: no
#include <undergo/undergo.h>

#include "check.h"

static char arena[64 << 20] __attribute__((aligned(16)));
static size_t used;

__attribute__((visibility("default"))) void* malloc(size_t n) {
  size_t at = __atomic_fetch_add(&used, (n + 31) & ~(size_t)15, __ATOMIC_RELAXED);
  if (at + n > sizeof arena - 16) return NULL;
  *(size_t*)(arena + at) = n;
  return arena + at + 16;
}
__attribute__((visibility("default"))) void free(void* p) { (void)p; }
__attribute__((visibility("default"))) void* calloc(size_t n, size_t size) {
  return malloc(n * size);
}
__attribute__((visibility("default"))) void* realloc(void* p, size_t n) {
  void* q = malloc(n);
  if (p != NULL && q != NULL) {
    size_t old = *(size_t*)((char*)p - 16);
    memcpy(q, p, old < n ? old : n);
  }
  return q;
}

int main(void) {
  CHECK(!UnderPreload() || (undergo_gc != NULL && undergo_gc() == -1));
  for (int i = 0; i < 100000; i++) CHECK(malloc(100));
  char* text = strdup("and libc's own calls come here");
  CHECK(text >= arena && text < arena + sizeof arena);
  puts("all right");
  return 0;
}
