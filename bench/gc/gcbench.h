// SPDX-License-Identifier: Apache-2.0
// What the collector's benchmarks share. A program is built twice: over malloc, for undergo, and
// with -DUSE_BDWGC over bdwgc (malloc becomes GC_malloc, nothing else changes), whose stops are
// timed by its own events. Figures go to stdout as `metric NAME NUMBER`, bdwgc's stops to stderr as
// `stop MILLISECONDS`; those of undergo and Go are in their traces.
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#ifdef USE_BDWGC
#define GC_THREADS
#include <gc/gc.h>
#else
#include <undergo/undergo.h>
#endif

#include "../workloads/bench.h"
#include "../workloads/histogram.h"

#ifdef USE_BDWGC
enum { kMaxStops = 1 << 20 };
static float stop_ms[kMaxStops];
static int stops;
static double stop_began;
static void OnCollectionEvent(GC_EventType event) {
  if (event == GC_EVENT_PRE_STOP_WORLD) stop_began = NowSeconds();
  if (event == GC_EVENT_POST_START_WORLD && stops < kMaxStops)
    stop_ms[stops++] = (float)((NowSeconds() - stop_began) * 1000);
}
static inline void Start(void) {
  GC_INIT();
  GC_allow_register_threads();
  GC_set_on_collection_event(OnCollectionEvent);
}
static inline void End(void) {
  for (int i = 0; i < stops; i++) fprintf(stderr, "stop %.4f\n", (double)stop_ms[i]);
  printf("metric collections %lu\n", (unsigned long)GC_get_gc_no());
}
static inline void* Allocate(size_t bytes) { return Must(GC_MALLOC(bytes)); }
static inline void Free(void* p) { GC_FREE(p); }
static inline void Collect(void) { GC_gcollect(); }
#else
static inline void Start(void) {}
static inline void End(void) {}
static inline void* Allocate(size_t bytes) { return Must(malloc(bytes)); }
static inline void Free(void* p) { free(p); }
static inline void Collect(void) {
  if (undergo_gc) undergo_gc();
}
#endif

#define NOINLINE __attribute__((noinline))

static inline double CpuSeconds(void) {
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
         (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
}

// The median of a few forced collections, in seconds of processor time and of wall time.
__attribute__((unused)) static void Force(const char* what) {
  enum { kForced = 3 };
  double cpu[kForced], wall[kForced];
  char name[64];
  for (int i = 0; i < kForced; i++) {
    const double c = CpuSeconds(), w = NowSeconds();
    Collect();
    cpu[i] = CpuSeconds() - c;
    wall[i] = NowSeconds() - w;
    for (int k = i; k > 0 && cpu[k] < cpu[k - 1]; k--) {
      double t = cpu[k];
      cpu[k] = cpu[k - 1], cpu[k - 1] = t;
      t = wall[k], wall[k] = wall[k - 1], wall[k - 1] = t;
    }
  }
  snprintf(name, sizeof name, "%s_cpu_s", what);
  Metric(name, cpu[kForced / 2]);
  snprintf(name, sizeof name, "%s_wall_s", what);
  Metric(name, wall[kForced / 2]);
}
