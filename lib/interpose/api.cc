// SPDX-License-Identifier: Apache-2.0
// The public C interface.
#include "diag/dump.h"
#include "gc/collector.h"
#include "gc/pauses.h"
#include "heap/heap_stats.h"
#include "sched/stack.h"
#include "undergo/undergo.h"

namespace gc = undergo::gc;
namespace heap = undergo::heap;

static_assert(UNDERGO_STATS_CLASSES == heap::kNumClasses);
static_assert(UNDERGO_STATS_PAUSES == gc::PauseRing::kSize);
static_assert(UNDERGO_PAUSE_BUCKETS == gc::kPauseBuckets);

namespace {

void Fill(const heap::HeapStats& s, undergo_stats* out) {
  out->alloc = out->heap_alloc = s.live_bytes;
  out->total_alloc = s.total_bytes;
  out->mallocs = s.mallocs;
  out->frees = s.frees;
  out->heap_sys = s.mapped_bytes;
  out->heap_inuse = s.span_bytes;
  out->heap_idle = s.mapped_bytes - s.span_bytes;
  out->heap_released = out->heap_idle - undergo::Min(out->heap_idle, s.dirty_free_bytes);
  out->heap_objects = s.live_objects;
  out->metadata_sys = s.metadata_bytes;
  out->sys = out->heap_sys + out->metadata_sys;
  out->purged = s.purged_bytes;
  out->slow_refills = s.slow_refills;
  for (uint32_t cls = 0; cls < heap::kNumClasses; ++cls) {
    const heap::ClassStats& c = s.classes[cls];
    out->by_size[cls] = {heap::kClasses[cls].size, static_cast<uint32_t>(c.spans), c.mallocs,
                         c.mallocs - c.live};
  }
  const heap::ClassStats& large = s.classes[heap::kLargeClass];
  out->large_mallocs = large.mallocs;
  out->large_frees = large.mallocs - large.live;
}

void FillCollector(undergo_stats* out) {
  gc::CollectorStats g;
  gc::ReadStats(&g);
  out->num_gc = g.cycles;
  out->num_forced_gc = g.forced_cycles;
  out->num_abandoned_gc = g.abandoned_cycles;
  out->pause_total_ns = g.pause_total_ns;
  out->max_pause_ns = g.max_pause_ns;
  out->last_gc_ns = g.last_end_ns;
  out->next_gc = g.goal;
  out->gc_reclaimed_objects = g.sweep.reclaimed_objects;
  out->gc_reclaimed_bytes = g.sweep.reclaimed_bytes;
  out->gc_probation_objects = g.sweep.condemned_objects;
  out->gc_probation_bytes = g.sweep.condemned_bytes;
  out->gc_resurrected = g.sweep.resurrected;
  out->gc_hidden_frees = g.sweep.hidden_frees;
  out->enable_gc = g.enabled ? 1 : 0;
  out->gc_cpu_fraction = g.cpu_fraction;
  out->gc_sys = g.memory;
  out->sys += g.memory;
  for (uint32_t i = 0; i < gc::PauseRing::kSize; ++i) {
    out->pause_ns[i] = gc::pauses.cycles.pause_ns(i);
    out->pause_end[i] = gc::pauses.cycles.end_ns(i);
  }
}

}  // namespace

extern "C" int undergo_dump_threads() {
  return undergo::diag::RequestDump({}) ? 0 : -1;
}

extern "C" int undergo_read_stats(undergo_stats* out, size_t size) {
  if (out == nullptr) return -1;
  heap::HeapStats s;
  heap::ReadHeapStats(&s);
  undergo_stats all = {};
  Fill(s, &all);
  FillCollector(&all);
  undergo::sched::SlotSizes stacks = undergo::sched::ReadSlotSizes();
  all.stack_sys = stacks.mapped;
  all.stack_inuse = stacks.in_use;
  __builtin_memcpy(out, &all, undergo::Min(size, sizeof all));
  return 0;
}

extern "C" int undergo_read_pauses(undergo_pauses* out, size_t size) {
  if (out == nullptr) return -1;
  undergo_pauses all;
  for (uint32_t i = 0; i < gc::kPauseBuckets; ++i) {
    all.stopping[i] = gc::pauses.stopping.count(i);
    all.total[i] = gc::pauses.total.count(i);
  }
  __builtin_memcpy(out, &all, undergo::Min(size, sizeof all));
  return 0;
}

extern "C" int undergo_gc(void) { return gc::Collect() ? 0 : -1; }

extern "C" int undergo_set_gc_percent(int percent) { return gc::SetPercent(percent); }

extern "C" int64_t undergo_set_memory_limit(int64_t bytes) { return gc::SetMemoryLimit(bytes); }

extern "C" int undergo_add_roots(void* from, void* to) {
  auto a = reinterpret_cast<undergo::Addr>(from), b = reinterpret_cast<undergo::Addr>(to);
  return a < b && gc::AddRoots(a, b) ? 0 : -1;
}

extern "C" const char* undergo_version(void) { return UNDERGO_VERSION; }
