// SPDX-License-Identifier: Apache-2.0
// Counters of the heap.
#include "heap/heap_stats.h"

#include "base/atomic.h"
#include "heap/mcache.h"
#include "heap/registry.h"
#include "heap/walk.h"
#include "plat/vm.h"

namespace undergo::heap {

namespace {

constinit uint64_t large_mallocs = 0;
constinit uint64_t large_bytes = 0;
constinit uint64_t late_mallocs[kNumClasses] = {};

void AddMCaches(HeapStats* out) {
  for (MCache* mc = FirstMCache(); mc != nullptr; mc = mc->all_next) {
    out->mcaches++;
    out->slow_refills += LoadRelaxed(&mc->slow_refills);
    for (uint32_t cls = 0; cls < kNumClasses; ++cls) {
      out->classes[cls].mallocs += LoadRelaxed(&mc->handed_out[cls]);
      out->classes[cls].mallocs -= CountBits(LoadRelaxed(&mc->cursors[cls].bits));
    }
  }
}

void AddSpans(HeapStats* out) {
  ForEachSpan([out](const Span* s) {
    if (s->state == SpanState::kLarge) {
      if (LoadRelaxed(&s->large_state) != kLargeLive) return;
      out->classes[kLargeClass].live++;
      out->classes[kLargeClass].spans++;
      out->live_bytes += s->large_bytes;
      return;
    }
    uint64_t live = 0;
    for (uint32_t w = 0; w < s->words(); ++w) live += CountBits(AllocatedBits(s, w));
    out->classes[s->cls].live += live;
    out->classes[s->cls].spans++;
    out->live_bytes += live * s->slot_size;
  });
}

}  // namespace

void CountLarge(size_t bytes) {
  FetchAddRelaxed(&large_mallocs, uint64_t{1});
  FetchAddRelaxed(&large_bytes, bytes);
}

void CountLate(uint32_t cls) { FetchAddRelaxed(&late_mallocs[cls], uint64_t{1}); }

void ReadHeapStats(HeapStats* out) {
  *out = HeapStats{};
  AddMCaches(out);
  AddSpans(out);
  for (uint32_t cls = 0; cls < kNumClasses; ++cls) {
    ClassStats& c = out->classes[cls];
    c.mallocs += LoadRelaxed(&late_mallocs[cls]);
    // The counters are read one after the other while threads run: keep them consistent.
    if (c.mallocs < c.live) c.mallocs = c.live;
    out->total_bytes += c.mallocs * kClasses[cls].size;
  }
  ClassStats& large = out->classes[kLargeClass];
  large.mallocs = Max(LoadRelaxed(&large_mallocs), large.live);
  out->total_bytes += LoadRelaxed(&large_bytes);
  for (const ClassStats& c : out->classes) {
    out->mallocs += c.mallocs;
    out->live_objects += c.live;
  }
  out->frees = out->mallocs - out->live_objects;
  MHeapStats m = mheap.stats();
  out->mapped_bytes = m.committed_bytes;
  out->span_bytes = m.in_use_bytes;
  out->peak_span_bytes = m.peak_in_use_bytes;
  out->dirty_free_bytes = m.dirty_free_bytes;
  out->purged_bytes = m.purged_bytes;
  out->spans_made = m.spans_allocated;
  out->resident_bytes = plat::ResidentBytes();
  out->metadata_bytes =
      (m.committed_bytes >> kSliceShift) * kSpanStride + out->mcaches * sizeof(MCache);
}

void FormatStats(const HeapStats& s, Fmt* out) {
  auto line = [out](const char* name, uint64_t value, const char* unit) {
    size_t start = out->length();
    out->Str("undergo:   ").Str(name).PadTo(start + 42).Dec(value, 14).Str(unit).Char('\n');
  };
  out->Str("undergo: heap statistics\n");
  line("live objects", s.live_objects, "");
  line("live bytes", s.live_bytes, "");
  line("objects allocated", s.mallocs, "");
  line("bytes allocated", s.total_bytes, "");
  line("objects freed", s.frees, "");
  line("bytes in spans", s.span_bytes, "");
  line("bytes in spans, peak", s.peak_span_bytes, "");
  line("bytes free and not given back", s.dirty_free_bytes, "");
  line("bytes given back so far", s.purged_bytes, "");
  line("bytes mapped", s.mapped_bytes, "");
  line("bytes resident, whole process", s.resident_bytes, "");
  line("bytes of metadata, at most", s.metadata_bytes, "");
  line("spans made", s.spans_made, "");
  line("refills with another span", s.slow_refills, "");
  line("thread caches", s.mcaches, "");
  out->Str("undergo:   size class        allocated             live            spans\n");
  for (uint32_t cls = 0; cls <= kNumClasses; ++cls) {
    const ClassStats& c = s.classes[cls];
    if (c.mallocs == 0) continue;
    out->Str("undergo: ");
    if (cls == kLargeClass) {
      out->Str("       large");
    } else {
      out->Dec(kClasses[cls].size, 12);
    }
    out->Dec(c.mallocs, 17).Dec(c.live, 17).Dec(c.spans, 17).Char('\n');
  }
}

}  // namespace undergo::heap
