// SPDX-License-Identifier: Apache-2.0
// How long the world was stopped: the distributions of Go's runtime/metrics and the last cycles of
// its MemStats. Counters only, no lock: the coordinator adds, any thread reads at any time.
#pragma once

#include "base/atomic.h"
#include "base/types.h"

namespace undergo::gc {

// Buckets are log-linear: four of 128 ns up to 512 ns, then four equal ones for each doubling. A
// bucket is at most a quarter of what it counts wide, so a quantile is that exact. The last one is
// open: from 2^47 x 1.75 ns, almost three days, on.
inline constexpr uint32_t kPauseBuckets = 160;

// The shortest time that bucket i counts, in ns; it ends where the next one begins.
constexpr uint64_t PauseBucketLow(uint32_t i) {
  return i < 4 ? uint64_t{i} * 128 : uint64_t{4 + i % 4} << (i / 4 + 6);
}

constexpr uint32_t PauseBucketOf(uint64_t ns) {
  if (ns < 512) return static_cast<uint32_t>(ns / 128);
  auto exponent = static_cast<uint32_t>(63 - __builtin_clzll(ns));  // 9 or more
  uint32_t i = (exponent - 8) * 4 + (ns >> (exponent - 2)) % 4;
  return Min(i, kPauseBuckets - 1);
}

class PauseHistogram {
 public:
  void Add(uint64_t ns) { FetchAddRelaxed(&counts_[PauseBucketOf(ns)], uint64_t{1}); }
  uint64_t count(uint32_t bucket) const { return LoadRelaxed(&counts_[bucket]); }

 private:
  uint64_t counts_[kPauseBuckets] = {};  // atomic
};

// The stops of the last cycles, each cycle's together; Go's PauseNs and PauseEnd.
class PauseRing {
 public:
  static constexpr uint32_t kSize = 256;

  // `cycle` counts from 1.
  void Set(uint64_t cycle, uint64_t pause_ns, uint64_t end_ns) {
    uint32_t i = static_cast<uint32_t>((cycle + kSize - 1) % kSize);
    StoreRelaxed(&pause_ns_[i], pause_ns);
    StoreRelaxed(&end_ns_[i], end_ns);
  }
  uint64_t pause_ns(uint32_t i) const { return LoadRelaxed(&pause_ns_[i]); }
  uint64_t end_ns(uint32_t i) const { return LoadRelaxed(&end_ns_[i]); }

 private:
  uint64_t pause_ns_[kSize] = {};  // atomic
  uint64_t end_ns_[kSize] = {};    // atomic; since 1970
};

struct Pauses {
  PauseHistogram stopping;  // from the decision to stop until all threads stood still
  PauseHistogram total;     // from the decision until they were let go
  PauseRing cycles;
};
extern constinit Pauses pauses;

}  // namespace undergo::gc
