// SPDX-License-Identifier: Apache-2.0
// What the scheduler's benchmarks share. Figures go to stdout as `metric NAME NUMBER`; a line
// `checksum HEX` is compared between subjects.
#pragma once

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "../workloads/bench.h"
#include "../workloads/histogram.h"

typedef void* (*Body)(void*);
static inline void Try(int error, const char* what) {
  if (error == 0) return;
  fprintf(stderr, "bench: %s: %s\n", what, strerror(error));
  exit(1);
}
__attribute__((unused)) static pthread_t Start(Body body, void* arg) {
  pthread_t t;
  Try(pthread_create(&t, NULL, body, arg), "pthread_create");
  return t;
}
static inline void Join(pthread_t t) { Try(pthread_join(t, NULL), "pthread_join"); }
__attribute__((unused)) static pthread_attr_t SmallStacks(void) {
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  Try(pthread_attr_setstacksize(&attr, 64 << 10), "pthread_attr_setstacksize");
  return attr;
}
// Of all threads together.
static inline double CpuSeconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
// "Name:  NUMBER" out of a file of /proc.
__attribute__((unused)) static long ProcField(const char* path, const char* name) {
  char line[256];
  const size_t length = strlen(name);
  long value = -1;
  FILE* file = fopen(path, "r");
  while (file && value < 0 && fgets(line, sizeof line, file))
    if (!strncmp(line, name, length) && line[length] == ':') value = atol(line + length + 1);
  if (file) fclose(file);
  return value;
}
