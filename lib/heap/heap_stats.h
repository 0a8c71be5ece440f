// SPDX-License-Identifier: Apache-2.0
// Counters of the heap, collected on demand: the fast paths keep none.
#pragma once

#include "base/fmt.h"
#include "heap/size_class.h"

namespace undergo::heap {

struct ClassStats {
  uint64_t mallocs;  // objects handed out so far
  uint64_t live;     // objects that the program holds
  uint64_t spans;
};

struct HeapStats {
  ClassStats classes[kNumClasses + 1];  // the last one is large objects
  uint64_t live_bytes;                  // usable bytes of live objects
  uint64_t live_objects;
  uint64_t total_bytes;  // of objects handed out so far
  uint64_t mallocs;
  uint64_t frees;
  uint64_t mapped_bytes;  // address space that may hold memory
  uint64_t span_bytes;    // in spans
  uint64_t peak_span_bytes;
  uint64_t dirty_free_bytes;  // free, may still be resident
  uint64_t purged_bytes;      // given back so far
  uint64_t resident_bytes;    // of the whole process, by the kernel's count
  uint64_t metadata_bytes;    // span headers and mcaches, by address space in use
  uint64_t spans_made;
  uint64_t slow_refills;  // refills that needed another span
  uint64_t mcaches;
};

// Large and late objects report themselves here.
void CountLarge(size_t bytes);
void CountLate(uint32_t cls);

// Walks all span headers: a fraction of a microsecond for each span.
void ReadHeapStats(HeapStats* out);

// The statistics block for people, each line with the library's prefix.
inline constexpr size_t kStatsTextSize = 8 * kKiB;
void FormatStats(const HeapStats& s, Fmt* out);

}  // namespace undergo::heap
