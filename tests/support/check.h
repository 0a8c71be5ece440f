// SPDX-License-Identifier: Apache-2.0
// What the test programs share: a check that names its place, a random stream, and readings of
// the process's own memory and threads. Usable from C and C++.
#ifndef UNDERGO_TESTS_CHECK_H_
#define UNDERGO_TESTS_CHECK_H_

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// The runner counts a program with this status as skipped; the last line printed is the reason.
enum { kSkipped = 77 };

// A failed check is written without stdio and without the heap: both may be what is broken.
__attribute__((noreturn, format(printf, 3, 4), unused)) static void CheckFailed(const char* file,
                                                                                int line,
                                                                                const char* format,
                                                                                ...) {
  char text[600];
  int n = snprintf(text, sizeof text, "%s:%d: ", file, line);
  va_list args;
  va_start(args, format);
  n += vsnprintf(text + n, sizeof text - (size_t)n - 2, format, args);
  va_end(args);
  if (n > (int)sizeof text - 2) n = (int)sizeof text - 2;
  text[n++] = '\n';
  if (write(2, text, (size_t)n) < 0) _exit(2);
  _exit(1);
}

#define CHECK(cond)                                                          \
  do {                                                                       \
    if (!(cond)) CheckFailed(__FILE__, __LINE__, "check failed: %s", #cond); \
  } while (0)
#define CHECK_MSG(cond, ...)                                   \
  do {                                                         \
    if (!(cond)) CheckFailed(__FILE__, __LINE__, __VA_ARGS__); \
  } while (0)
#define CHECK_EQ(a, b)                                                                             \
  do {                                                                                             \
    long long check_a_ = (long long)(a), check_b_ = (long long)(b);                                \
    if (check_a_ != check_b_)                                                                      \
      CheckFailed(__FILE__, __LINE__, "%s is %lld, wanted %s = %lld", #a, check_a_, #b, check_b_); \
  } while (0)
#define SKIP(reason) \
  do {               \
    puts(reason);    \
    fflush(stdout);  \
    _exit(kSkipped); \
  } while (0)

// Hides a value from the optimiser, so that odd sizes and stale pointers reach the call.
static inline size_t Opaque(size_t v) {
  __asm__ volatile("" : "+r"(v));
  return v;
}
static inline void* OpaquePtr(void* p) {
  __asm__ volatile("" : "+r"(p) : : "memory");
  return p;
}

// xorshift64*: the same stream for the same seed everywhere.
typedef struct Random {
  uint64_t state;
} Random;
static inline uint64_t Next(Random* r) {
  uint64_t x = r->state ? r->state : 0x9e3779b97f4a7c15u;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  r->state = x;
  return x * 0x2545f4914f6cdd1du;
}
static inline size_t Below(Random* r, size_t n) { return (size_t)((Next(r) >> 16) % n); }

// Fills and verifies memory by a pattern that depends on the tag and on the offset, so that a
// block handed out twice, moved wrongly or zeroed shows.
static inline uint8_t PatternByte(uint64_t tag, size_t i) {
  return (uint8_t)((uint32_t)((tag * 0x9e3779b1u) >> 7) + (uint32_t)i * 31 + ((uint32_t)i >> 8));
}
__attribute__((unused)) static void Fill(void* p, size_t n, uint64_t tag) {
  uint8_t* b = (uint8_t*)p;
  for (size_t i = 0; i < n; i++) b[i] = PatternByte(tag, i);
}
// The offset of the first wrong byte, or n.
__attribute__((unused)) static size_t Verify(const void* p, size_t n, uint64_t tag) {
  const uint8_t* b = (const uint8_t*)p;
  size_t i = 0;
  // By pieces without an early end, which the compiler turns into vector code.
  for (; i + 256 <= n; i += 256) {
    uint8_t wrong = 0;
    for (size_t k = 0; k < 256; k++) wrong |= b[i + k] ^ PatternByte(tag, i + k);
    if (wrong) break;
  }
  for (; i < n; i++)
    if (b[i] != PatternByte(tag, i)) return i;
  return n;
}

// Reads "Name: value" out of a file of /proc without the heap; -1 when it is not there.
__attribute__((unused)) static long ProcField(const char* path, const char* name) {
  char text[8192];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t n = 0;
  for (;;) {
    ssize_t got = read(fd, text + n, sizeof text - 1 - n);
    if (got <= 0) break;
    n += (size_t)got;
  }
  close(fd);
  text[n] = 0;
  size_t len = strlen(name);
  for (char* line = text; line; line = strchr(line, '\n')) {
    if (*line == '\n') line++;
    if (!strncmp(line, name, len) && line[len] == ':') return strtol(line + len + 1, NULL, 10);
  }
  return -1;
}
__attribute__((unused)) static long RssKb(void) { return ProcField("/proc/self/status", "VmRSS"); }

__attribute__((unused)) static void SleepMs(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&t, &t) < 0 && errno == EINTR) {
  }
}
__attribute__((unused)) static double Seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// True when malloc comes from the library under test.
__attribute__((unused)) static int UnderPreload(void) {
  Dl_info info;
  void* m = dlsym(RTLD_DEFAULT, "malloc");
  return m && dladdr(m, &info) && info.dli_fname && strstr(info.dli_fname, "libundergo") != NULL;
}

// True when threads run on the library's scheduler, as they do unless a setting says otherwise.
__attribute__((unused)) static int Scheduled(void) {
  const char* settings = getenv("UNDERGO");
  return UnderPreload() && !(settings && strstr(settings, "sched=off"));
}

// The path of a plugin that the build put beside the program.
__attribute__((unused)) static const char* PluginPath(const char* name) {
  static char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 200);
  CHECK(n > 0);
  path[n] = 0;
  char* slash = strrchr(path, '/');
  snprintf(slash, 200, "/plugins/%s.so", name);
  return path;
}

#endif  // UNDERGO_TESTS_CHECK_H_
