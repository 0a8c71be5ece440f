// SPDX-License-Identifier: Apache-2.0
// What every workload shares: arguments, a seeded generator, filling and checking of memory, and
// the one line of output ("checksum <hex>") by which runs under different allocators are compared.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// SplitMix64: small state, good enough bits, the same everywhere.
typedef struct {
  uint64_t state;
} Rng;

static inline Rng RngSeed(uint64_t seed) {
  Rng rng = {seed * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u};
  return rng;
}

static inline uint64_t RngNext(Rng* rng) {
  uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Uniform in [0, limit); the multiply avoids a division.
static inline uint64_t RngBelow(Rng* rng, uint64_t limit) {
  return ((RngNext(rng) >> 32) * limit) >> 32;
}

static inline uint64_t RngBetween(Rng* rng, uint64_t low, uint64_t high) {
  return low + RngBelow(rng, high - low + 1);
}

// Log-uniform in [2^low_bits, 2^high_bits): each doubling is equally likely, so small is common.
static inline uint64_t RngSkewed(Rng* rng, unsigned low_bits, unsigned high_bits) {
  const unsigned bits = low_bits + (unsigned)RngBelow(rng, high_bits - low_bits);
  return ((uint64_t)1 << bits) + RngBelow(rng, (uint64_t)1 << bits);
}

static inline uint64_t Mix(uint64_t sum, uint64_t value) {
  sum ^= value + 0x9e3779b97f4a7c15u + (sum << 6) + (sum >> 2);
  return sum * 0xff51afd7ed558ccdu;
}

static inline long Argument(int argc, char** argv, int index, long fallback) {
  return index < argc ? atol(argv[index]) : fallback;
}

static inline void* Must(void* block) {
  if (block == NULL) {
    fprintf(stderr, "workload: out of memory\n");
    abort();
  }
  return block;
}

static inline void Expect(int holds, const char* what) {
  if (!holds) {
    fprintf(stderr, "workload: wrong: %s\n", what);
    abort();
  }
}

// Writes the whole block, as most programs do, in a way that EndsAre can check later.
static inline void Fill(void* block, size_t size, uint64_t tag) {
  memset(block, (int)(tag & 0xff), size);
}

static inline int EndsAre(const void* block, size_t size, uint64_t tag) {
  const unsigned char* bytes = (const unsigned char*)block;
  const unsigned char want = (unsigned char)(tag & 0xff);
  return bytes[0] == want && bytes[size - 1] == want && bytes[size / 2] == want;
}

static inline double NowSeconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline int Finish(uint64_t sum) {
  printf("checksum %016llx\n", (unsigned long long)sum);
  return 0;
}
