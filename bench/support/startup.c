// SPDX-License-Identifier: Apache-2.0
// Start-up cost: spawns one small program many times under several preloads in turn and prints for
// each the median wall time and median peak RSS. Static, so that nothing of it is preloaded.
//   startup RUNS PROGRAM NAME=PRELOAD[;VARIABLE=VALUE] ...
// An empty preload is the native run. One line per name: "name wall_us maxrss_kb minor_faults".
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum { kMaxVariants = 16, kMaxRuns = 10000 };

extern char** environ;

typedef struct {
  char* name;
  char* environment[3];  // LD_PRELOAD=..., one more variable, end
  long *wall_ns, *rss_kb, *faults;
} Variant;

static int CompareLongs(const void* a, const void* b) {
  const long x = *(const long*)a, y = *(const long*)b;
  return (x > y) - (x < y);
}

static long Median(long* values, long count) {
  qsort(values, (size_t)count, sizeof(long), CompareLongs);
  return values[count / 2];
}

static long NowNanos(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000l + now.tv_nsec;
}

static Variant ParseVariant(char* text, long runs) {
  Variant variant = {0};
  char* preload = strchr(text, '=');
  if (preload == NULL) {
    fprintf(stderr, "startup: '%s' is not NAME=PRELOAD\n", text);
    exit(2);
  }
  *preload++ = '\0';
  variant.name = text;
  char* extra = strchr(preload, ';');
  if (extra != NULL) *extra++ = '\0';
  int count = 0;
  if (*preload != '\0') {
    if (asprintf(&variant.environment[count++], "LD_PRELOAD=%s", preload) < 0) exit(1);
  }
  if (extra != NULL) variant.environment[count++] = extra;
  variant.wall_ns = calloc((size_t)runs, sizeof(long));
  variant.rss_kb = calloc((size_t)runs, sizeof(long));
  variant.faults = calloc((size_t)runs, sizeof(long));
  return variant;
}

static void RunOnce(const Variant* variant, char* program, long run) {
  char* const argv[] = {program, NULL};
  struct rusage usage;
  int status;
  pid_t child;
  const long start = NowNanos();
  if (posix_spawn(&child, program, NULL, NULL, argv, variant->environment) != 0 ||
      wait4(child, &status, 0, &usage) != child || status != 0) {
    fprintf(stderr, "startup: %s failed under %s\n", program, variant->name);
    exit(1);
  }
  variant->wall_ns[run] = NowNanos() - start;
  variant->rss_kb[run] = usage.ru_maxrss;
  variant->faults[run] = usage.ru_minflt;
}

int main(int argc, char** argv) {
  const long runs = argc > 3 ? atol(argv[1]) : 0;
  if (runs <= 0 || runs > kMaxRuns || argc - 3 > kMaxVariants) {
    fprintf(stderr, "startup: usage: startup RUNS PROGRAM NAME=PRELOAD[;VARIABLE=VALUE] ...\n");
    return 2;
  }
  Variant variants[kMaxVariants];
  const int count = argc - 3;
  for (int i = 0; i < count; ++i) variants[i] = ParseVariant(argv[3 + i], runs);
  for (int i = 0; i < count; ++i) RunOnce(&variants[i], argv[2], 0);  // warm the page cache
  for (long run = 0; run < runs; ++run) {
    for (int i = 0; i < count; ++i) RunOnce(&variants[(i + run) % count], argv[2], run);
  }
  for (int i = 0; i < count; ++i) {
    Variant* variant = &variants[i];
    printf("%s %.1f %ld %ld\n", variant->name, (double)Median(variant->wall_ns, runs) / 1000.0,
           Median(variant->rss_kb, runs), Median(variant->faults, runs));
  }
  return 0;
}
