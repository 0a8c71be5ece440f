// SPDX-License-Identifier: Apache-2.0
// A plugin to be loaded with RTLD_DEEPBIND or into another namespace: blocks cross its border both
// ways.
#include <string.h>

#include "check.h"

void* CrossMake(size_t n, uint64_t tag) {
  void* p = malloc(n);
  Fill(p, n, tag);
  return p;
}
void* CrossZero(size_t n) { return calloc(1, n); }
void* CrossAligned(size_t align, size_t n) {
  void* p = NULL;
  return posix_memalign(&p, align, n) == 0 ? p : NULL;
}
void* CrossResize(void* p, size_t n) { return realloc(p, n); }
void CrossFree(void* p) { free(p); }
size_t CrossUsable(void* p) { return malloc_usable_size(p); }
char* CrossText(int n) {
  char* text = NULL;
  if (asprintf(&text, "number %d", n) < 0) return NULL;
  return text;
}
char* CrossDup(const char* s) { return strdup(s); }
void* CrossMallocAddress(void) { return (void*)&malloc; }
