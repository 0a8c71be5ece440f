// SPDX-License-Identifier: Apache-2.0
// Figures that a program measures itself: one by one, or as quantiles of many latencies.
#pragma once

#include <stdint.h>
#include <stdio.h>

static inline void Metric(const char* name, double value) {
  printf("metric %s %.6g\n", name, value);
}

// Latencies in nanoseconds by eighths of a doubling, up to an hour.
typedef struct Histogram {
  uint64_t count[512], total, longest;
} Histogram;
static inline void Record(Histogram* h, double seconds) {
  const uint64_t ns = (uint64_t)(seconds * 1e9) + 8;
  const int log = 63 - __builtin_clzll(ns);
  h->count[log * 8 + (int)(ns >> (log - 3) & 7)]++;
  h->total++;
  if (ns > h->longest) h->longest = ns;
}
static inline void Merge(Histogram* to, const Histogram* from) {
  for (int i = 0; i < 512; i++) to->count[i] += from->count[i];
  to->total += from->total;
  if (from->longest > to->longest) to->longest = from->longest;
}
// Microseconds below which the given part of all latencies lies.
static inline double Quantile(const Histogram* h, double part) {
  uint64_t seen = 0;
  for (int i = 0; i < 512; i++) {
    seen += h->count[i];
    if (h->total != 0 && (double)seen >= part * (double)h->total)
      return (double)((uint64_t)(8 + i % 8) << (i / 8)) / 8 / 1000;
  }
  return 0;
}
static inline void Latencies(const char* what, const Histogram* h) {
  printf("metric %s_p50_us %.4g\n", what, Quantile(h, 0.5));
  printf("metric %s_p99_us %.4g\n", what, Quantile(h, 0.99));
  printf("metric %s_p999_us %.4g\n", what, Quantile(h, 0.999));
  printf("metric %s_max_us %.4g\n", what, (double)h->longest / 1000);
}
