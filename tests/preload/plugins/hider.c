// SPDX-License-Identifier: Apache-2.0
// A library that knows its objects by the complement of their addresses only, as fontconfig and
// Berkeley DB know theirs by distances. Each object is made in another way and holds the address of
// an object of the program.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HIDER_SIZE 240
enum { kWays = 10 };
static uintptr_t hidden[kWays];

static void* Make(int way) {
  void* p = NULL;
  size_t n = 0;
  switch (way) {
    case 0: return malloc(HIDER_SIZE);
    case 1: return calloc(1, HIDER_SIZE);
    case 2: return realloc(malloc(10), HIDER_SIZE);
    case 3: return posix_memalign(&p, 64, HIDER_SIZE) == 0 ? p : NULL;
    case 4: return aligned_alloc(256, 256);
    case 5: return malloc(HIDER_SIZE + 100000);
    case 6: {
      char text[HIDER_SIZE];
      memset(text, 'x', sizeof text);
      text[sizeof text - 1] = '\0';
      return strdup(text);
    }
    case 7: return asprintf((char**)&p, "%0*d", HIDER_SIZE - 1, 7) > 0 ? p : NULL;
    case 8: {
      FILE* f = fopen("/proc/self/maps", "r");
      if (f == NULL) return NULL;
      char* line = malloc(1);
      n = 1;
      if (getline(&line, &n, f) < 0) return NULL;
      fclose(f);
      return realloc(line, HIDER_SIZE);
    }
    default: return reallocarray(NULL, HIDER_SIZE / 8, 8);
  }
}

// Makes object `way`, which begins with the address given.
int HiderMake(int way, void* address) {
  void** p = Make(way);
  if (p == NULL) return -1;
  memset(p, 0x5c, HIDER_SIZE);
  p[0] = address;
  hidden[way] = ~(uintptr_t)p;
  return 0;
}
// What was stored; null when the object is not as it was.
void* HiderLook(int way) {
  unsigned char* p = (unsigned char*)~hidden[way];
  for (int i = sizeof(void*); i < HIDER_SIZE; i++)
    if (p[i] != 0x5c) return NULL;
  return *(void**)p;
}
// By the program's realloc, which moves it.
void HiderMove(int way, void* (*by)(void*, size_t)) {
  hidden[way] = ~(uintptr_t)by((void*)~hidden[way], 3000 + 700 * (size_t)way);
}
void HiderDrop(int way) { free((void*)~hidden[way]); }
int HiderWays(void) { return kWays; }
