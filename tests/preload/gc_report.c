// SPDX-License-Identifier: Apache-2.0
// Leaks of two places and of several sizes, for the leak report; a free of a freed object, for the
// call chain in the line about it. The lines are looked at by tests/safety/run.sh.
// run: name=off env=UNDERGO=gc=off
// run: name=on
// native: no
#include "gc.h"

NOINLINE void* MakeSmall(void) {
  void* p = malloc(500);
  memset(p, 1, 500);
  __asm__ volatile("" ::: "memory");
  return p;
}
NOINLINE void LeakSmall(void) {
  void* volatile p = MakeSmall();
  (void)p;
}
NOINLINE void LeakLarge(void) {
  void* volatile p = calloc(300000, 1);
  (void)p;
}
NOINLINE void FreeTwice(void* p) {
  free(p);
  free(p);
  __asm__ volatile("" ::: "memory");
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "twice") == 0) {
    FreeTwice(MakeSmall());
    return 0;
  }
  for (int i = 0; i < 1000; i++) {
    LeakSmall();
    free(MakeSmall());
  }
  for (int i = 0; i < 50; i++) LeakLarge();
  Scrub();
  puts("all right");
  return 0;
}
