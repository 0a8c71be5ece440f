// SPDX-License-Identifier: Apache-2.0
// The C library's malloc with one fault, named by UNDERGO_BROKEN, for tests/selftest.sh: each fault
// must be noticed by a test. Without the variable it is right.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void* __libc_malloc(size_t);
extern void __libc_free(void*);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern char** environ;

static char fault[40];
static int known;
static unsigned long calls;
static void* last;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int leaving;

static int Is(const char* name) {
  if (!known) {
    known = 1;
    for (char** e = environ; e && *e; e++)
      if (!strncmp(*e, "UNDERGO_BROKEN=", 15)) strncpy(fault, *e + 15, sizeof fault - 1);
    if (Is("opens_file")) open("/dev/null", O_RDONLY);
  }
  return !strcmp(fault, name);
}
// Every 997th call, once the process has started.
static int Now(void) {
  return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) > 2000 && calls % 997 == 0;
}
static int OtherThread(void) { return syscall(SYS_gettid) != getpid(); }

static void Enter(void) {
  if (!Is("plain_lock")) return;
  pthread_mutex_lock(&lock);
  for (volatile int i = 0; i < 300; i++) {
  }
}
static void Leave(void) {
  if (Is("plain_lock")) pthread_mutex_unlock(&lock);
}

void* malloc(size_t n) {
  Enter();
  void* p = __libc_malloc(Is("misaligned") ? n + 16 : n);
  if (!p && Is("errno_lost")) errno = 0;
  if (!p && Is("dies_when_full")) abort();
  if (Now()) {
    if (Is("overlap") && last && n <= 64) p = last;
    if (Is("misaligned") && n < 5000) p = (char*)p + 8;
    if (Is("random_null")) p = NULL;
  }
  if (n == 64) last = p;
  Leave();
  return p;
}

void free(void* p) {
  if (Is("free_sets_errno")) errno = EINVAL;
  if (Is("no_free")) return;
  if (Is("remote_free_lost") && OtherThread()) return;
  if (Is("dies_at_exit") && leaving) abort();
  Enter();
  __libc_free(p);
  Leave();
}

void* calloc(size_t a, size_t b) {
  Enter();
  void* p = __libc_calloc(a, b);
  if (p && Is("dirty_calloc") && Now()) memset(p, 7, a * b);
  Leave();
  return p;
}

void* realloc(void* p, size_t n) {
  if (n == 0 && Is("realloc_keeps")) n = 1;
  Enter();
  size_t old = malloc_usable_size(p);
  void* q = __libc_realloc(p, n);
  if (q && p && q != p && Is("realloc_short") && old > 40 && n > old)
    memset((char*)q + old - 24, 0, 16);
  Leave();
  return q;
}

size_t malloc_usable_size(void* p) {
  if (!p) return 0;
  // The word before a block holds its chunk's size; the low bits are flags.
  size_t chunk = ((size_t*)p)[-1];
  size_t usable = (chunk & ~(size_t)7) - (chunk & 2 ? 16 : 8);
  return Is("usable_small") && usable > 100 ? usable / 2 : usable;
}

__attribute__((destructor)) static void Leaving(void) { leaving = 1; }
