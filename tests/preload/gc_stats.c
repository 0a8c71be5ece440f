// SPDX-License-Identifier: Apache-2.0
// What undergo_read_stats and undergo_read_pauses say about collections agrees with each other.
// run: name=tracked
// run: name=snapshot env=UNDERGO=tracking=snapshot
// run: name=stop env=UNDERGO=tracking=stop
// run: name=off env=UNDERGO=gc=off off
// native: no
#include "gc.h"

enum { kCycles = 20 };

static struct undergo_pauses pauses;

static uint64_t Sum(const uint64_t* counts) {
  uint64_t sum = 0;
  for (int i = 0; i < UNDERGO_PAUSE_BUCKETS; i++) sum += counts[i];
  return sum;
}

// Bounds of all times that were counted, in ns.
static void Bounds(const uint64_t* counts, double* low, double* high) {
  *low = *high = 0;
  for (unsigned i = 0; i < UNDERGO_PAUSE_BUCKETS; i++) {
    *low += (double)counts[i] * (double)undergo_pause_bucket_ns(i);
    *high += (double)counts[i] * (double)undergo_pause_bucket_ns(i + 1);
  }
}

static void CheckOff(void) {
  const struct undergo_stats* s = GcStats();
  CHECK(undergo_gc() == -1);
  CHECK_EQ(s->enable_gc, 0);
  CHECK_EQ(s->num_gc, 0);
  CHECK_EQ(s->gc_sys, 0);
  CHECK_EQ(undergo_read_pauses(&pauses, sizeof pauses), 0);
  CHECK_EQ(Sum(pauses.total), 0);
}

static void CheckRing(const struct undergo_stats* s) {
  uint64_t sum = 0, last = (s->num_gc + UNDERGO_STATS_PAUSES - 1) % UNDERGO_STATS_PAUSES;
  for (int i = 0; i < UNDERGO_STATS_PAUSES; i++) sum += s->pause_ns[i];
  CHECK_EQ(sum, s->pause_total_ns);
  CHECK_EQ(s->pause_end[last], s->last_gc_ns);
  CHECK(s->pause_ns[last] != 0);
  CHECK_EQ(s->pause_ns[(last + 1) % UNDERGO_STATS_PAUSES], 0);
}

static void CheckPauses(const struct undergo_stats* s) {
  double low, high, stopping_low, stopping_high;
  CHECK_EQ(undergo_read_pauses(&pauses, sizeof pauses), 0);
  // A cycle stops the world twice, or once when writes are not tracked.
  CHECK_MSG(Sum(pauses.total) >= s->num_gc, "%llu stops", (unsigned long long)Sum(pauses.total));
  CHECK_EQ(Sum(pauses.total), Sum(pauses.stopping));
  Bounds(pauses.total, &low, &high);
  Bounds(pauses.stopping, &stopping_low, &stopping_high);
  CHECK(stopping_low <= high);
  // Cycles that were given up stopped it, too.
  CHECK_MSG(high >= (double)s->pause_total_ns, "%g ns counted, %llu in all", high,
            (unsigned long long)s->pause_total_ns);
  CHECK(s->num_abandoned_gc != 0 || low <= (double)s->pause_total_ns);
}

int main(int argc, char** argv) {
  (void)argv;
  CHECK(undergo_read_pauses(NULL, sizeof pauses) == -1);
  if (argc > 1) return CheckOff(), 0;
  NEED_GC();
  Live* live = MakeLive(2000, 3);
  for (int i = 0; i < kCycles; i++) {
    Leak(1000);
    undergo_gc();
  }
  CheckLive(live, 2000, 3);
  const struct undergo_stats* s = GcStats();
  CHECK_EQ(s->enable_gc, 1);
  CHECK(s->num_gc + s->num_abandoned_gc >= kCycles && s->num_forced_gc <= s->num_gc);
  CHECK_MSG(s->gc_cpu_fraction > 0 && s->gc_cpu_fraction < 1, "%g", s->gc_cpu_fraction);
  CHECK(s->gc_sys > 4096 && s->sys == s->heap_sys + s->metadata_sys + s->gc_sys);
  CheckRing(s);
  CheckPauses(s);
  // An older program reads less, and nothing behind it changes.
  struct undergo_pauses part;
  memset(&part, 0xa5, sizeof part);
  CHECK_EQ(undergo_read_pauses(&part, sizeof part.stopping), 0);
  CHECK_EQ(part.total[0], 0xa5a5a5a5a5a5a5a5u);
  return 0;
}
