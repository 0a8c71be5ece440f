// SPDX-License-Identifier: Apache-2.0
// Histograms of stops: where a bucket begins and ends, that each time falls into its bucket, that
// the public header says the same.
#include "gc/pauses.h"

#include <criterion/criterion.h>

#include <thread>
#include <vector>

#include "undergo/undergo.h"

using namespace undergo::gc;

Test(pauses, buckets_are_adjacent_and_grow_by_a_quarter_at_most) {
  cr_assert(PauseBucketLow(0) == 0);
  for (uint32_t i = 0; i + 1 < kPauseBuckets; ++i) {
    uint64_t low = PauseBucketLow(i), next = PauseBucketLow(i + 1);
    cr_assert(next > low, "bucket %u", i);
    cr_assert(PauseBucketOf(low) == i, "bucket %u: its first is in %u", i, PauseBucketOf(low));
    cr_assert(PauseBucketOf(next - 1) == i, "bucket %u: its last is in %u", i,
              PauseBucketOf(next - 1));
    if (low >= 512) cr_assert((next - low) * 4 <= low, "bucket %u is too wide", i);
  }
}

Test(pauses, known_bounds) {
  cr_expect(PauseBucketLow(3) == 384);
  cr_expect(PauseBucketLow(4) == 512);
  cr_expect(PauseBucketLow(8) == 1024);
  cr_expect(PauseBucketLow(9) == 1280);
  // The last bucket takes whatever is longer.
  cr_expect(PauseBucketOf(UINT64_MAX) == kPauseBuckets - 1);
  cr_expect(PauseBucketOf(PauseBucketLow(kPauseBuckets - 1)) == kPauseBuckets - 1);
}

Test(pauses, the_header_says_the_same) {
  for (uint32_t i = 0; i < kPauseBuckets; ++i) {
    cr_expect(undergo_pause_bucket_ns(i) == PauseBucketLow(i), "bucket %u", i);
  }
}

Test(pauses, additions_of_several_threads_are_not_lost) {
  static PauseHistogram h;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (uint64_t i = 0; i < 10000; ++i) h.Add(i * 100);
    });
  }
  for (auto& t : threads) t.join();
  uint64_t sum = 0;
  for (uint32_t i = 0; i < kPauseBuckets; ++i) sum += h.count(i);
  cr_expect(sum == 40000);
  cr_expect(h.count(0) == 4 * 2);  // 0 and 100
  cr_expect(h.count(1) == 4);      // 200
}

Test(pauses, ring_has_the_last_cycle_where_go_has_it) {
  static PauseRing ring;
  for (uint64_t cycle = 1; cycle <= 300; ++cycle) ring.Set(cycle, cycle * 10, cycle);
  cr_expect(ring.pause_ns((300 + 255) % 256) == 3000);
  cr_expect(ring.end_ns((300 + 255) % 256) == 300);
  cr_expect(ring.pause_ns(300 % 256) == 450);  // the oldest: cycle 45
}
