// SPDX-License-Identifier: Apache-2.0
// A second preload of the kind that sandboxes and tracers use: it stands before mmap, open,
// readlink and others, allocates in each of them, and looks the real functions up with dlsym on the
// first call.
#include <stdarg.h>
#include <sys/mman.h>

#include "check.h"

static __thread int inside;
static unsigned long calls;

static void Work(void) {
  calls++;
  if (inside) return;
  inside = 1;
  char* p = malloc(64 + calls % 500);
  memset(p, 1, 64);
  free(strdup("a word of the second preload"));
  free(p);
  inside = 0;
}
#define REAL(name)                                              \
  static __typeof__(&name) real;                                \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
  Work()

void* mmap(void* a, size_t n, int prot, int flags, int fd, off_t off) {
  REAL(mmap);
  return real(a, n, prot, flags, fd, off);
}
int munmap(void* a, size_t n) {
  REAL(munmap);
  return real(a, n);
}
int mprotect(void* a, size_t n, int prot) {
  REAL(mprotect);
  return real(a, n, prot);
}
int madvise(void* a, size_t n, int advice) {
  REAL(madvise);
  return real(a, n, advice);
}
int open(const char* path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, int) : 0;
  va_end(args);
  REAL(open);
  return real(path, flags, mode);
}
ssize_t readlink(const char* path, char* to, size_t n) {
  REAL(readlink);
  return real(path, to, n);
}
char* getenv(const char* name) {
  REAL(getenv);
  return real(name);
}
long sysconf(int name) {
  REAL(sysconf);
  return real(name);
}
ssize_t read(int fd, void* to, size_t n) {
  REAL(read);
  return real(fd, to, n);
}
ssize_t write(int fd, const void* from, size_t n) {
  REAL(write);
  return real(fd, from, n);
}
__attribute__((constructor)) static void Start(void) { Work(); }
unsigned long RecurseCalls(void) { return calls; }
