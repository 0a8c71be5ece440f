// SPDX-License-Identifier: Apache-2.0
// The public C interface.
#include "heap/heap_stats.h"
#include "undergo/undergo.h"

namespace heap = undergo::heap;

static_assert(UNDERGO_STATS_CLASSES == heap::kNumClasses);

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

}  // namespace

extern "C" int undergo_read_stats(undergo_stats* out, size_t size) {
  if (out == nullptr) return -1;
  heap::HeapStats s;
  heap::ReadHeapStats(&s);
  undergo_stats all = {};
  Fill(s, &all);
  __builtin_memcpy(out, &all, undergo::Min(size, sizeof all));
  return 0;
}

extern "C" const char* undergo_version(void) { return UNDERGO_VERSION; }
