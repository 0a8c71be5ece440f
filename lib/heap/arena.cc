// SPDX-License-Identifier: Apache-2.0
// Reservation and commitment of the heap's range and of its tables.
#include "heap/arena.h"

#include "base/assert.h"
#include "plat/vm.h"

// Of libtsan.so, if the program has it.
extern "C" __attribute__((weak)) void __tsan_init();

namespace undergo::heap {

constinit ArenaRange arena;

namespace {

// One table: `stride` bytes for each slice, committed in each region from its first slice upwards.
struct Table {
  size_t stride = 0;
  Addr base = 0;
  Addr committed[kRegions] = {};  // end of what is committed, page aligned
};

struct Layout {
  uint32_t capacity = 0;              // slices
  uint32_t committed[kRegions] = {};  // end of what is committed in the region
  uint32_t begin[kRegions] = {};
  uint32_t limit[kRegions] = {};
  bool reserved = false;
  Table spans;
  Table back;  // uint32_t: slices from the first slice of the span
  Table marks;
  Table fates;
  Table rare;
  Table kinds;
  Table queue;
  Table noted;
};

constinit Layout layout;

// Unreserved operation begins here: far below the kernel's own placements and above the shadow
// memory of sanitizers. A few tries with a stride find room even when somebody was here before.
constexpr Addr kUnreservedBase = Addr{0x2000} << 32;
constexpr Addr kUnreservedStride = Addr{0x100} << 32;

size_t TableBytes(const Table& t, uint32_t slices) {
  return AlignUp(size_t{slices} * t.stride, kOsPageSize);
}

size_t MetadataBytes(uint32_t slices) {
  return TableBytes(layout.spans, slices) + TableBytes(layout.back, slices) +
         TableBytes(layout.marks, slices) + TableBytes(layout.fates, slices) +
         TableBytes(layout.rare, slices) + TableBytes(layout.kinds, slices) +
         TableBytes(layout.queue, slices) + TableBytes(layout.noted, slices);
}

void PlaceTables(Addr at, uint32_t slices) {
  for (Table* t : {&layout.spans, &layout.back, &layout.marks, &layout.fates, &layout.rare,
                   &layout.kinds, &layout.queue, &layout.noted}) {
    t->base = at;
    for (int r = 0; r < kRegions; ++r) {
      t->committed[r] = at + AlignDown(size_t{layout.begin[r]} * t->stride, kOsPageSize);
    }
    at += TableBytes(*t, slices);
  }
  arena.spans = layout.spans.base;
  arena.marks = layout.marks.base;
  arena.fates = layout.fates.base;
  arena.rare = layout.rare.base;
  arena.kinds = layout.kinds.base;
  arena.queue = layout.queue.base;
  arena.noted = layout.noted.base;
}

void SetRegions(uint32_t capacity, uint32_t lower_limit) {
  layout.capacity = capacity;
  layout.begin[0] = layout.committed[0] = 0;
  layout.limit[0] = lower_limit;
  layout.begin[1] = layout.committed[1] = lower_limit;
  layout.limit[1] = capacity;
}

bool ReserveAll(uint32_t slices) {
  size_t heap_bytes = size_t{slices} << kSliceShift;
  // One huge page more, so that the heap can begin at a multiple of it.
  void* heap = plat::Reserve(heap_bytes + kHugePageSize, 0);
  if (heap == nullptr) return false;
  void* tables = plat::ReserveReadable(MetadataBytes(slices), 0);
  if (tables == nullptr) {
    plat::Unmap(reinterpret_cast<Addr>(heap), heap_bytes + kHugePageSize);
    return false;
  }
  SetRegions(slices, slices / 2);
  PlaceTables(reinterpret_cast<Addr>(tables), slices);
  arena.base = AlignUp(reinterpret_cast<Addr>(heap), kHugePageSize);
  arena.size = heap_bytes;
  layout.reserved = true;
  return true;
}

void StartUnreserved(Addr base) {
  SetRegions(kMaxSlices, kMaxSlices);
  layout.reserved = false;
  arena.base = base;
  arena.size = 0;
  PlaceTables(base + (size_t{kMaxSlices} << kSliceShift), kMaxSlices);
}

bool CommitRange(Addr at, size_t size) {
  return layout.reserved ? plat::Commit(at, size) : plat::MapAt(at, size);
}

// Entries of the region's slices below `to`.
bool CommitTable(Table& t, int region, uint32_t to) {
  Addr end = t.base + TableBytes(t, to);
  Addr from = t.committed[region];
  if (end <= from) return true;
  if (!CommitRange(from, end - from)) return false;
  t.committed[region] = end;
  return true;
}

bool CommitAll(int region, uint32_t from, uint32_t to) {
  // Tables first: an address inside the range always has a readable header.
  return CommitTable(layout.spans, region, to) && CommitTable(layout.back, region, to) &&
         CommitTable(layout.marks, region, to) && CommitTable(layout.fates, region, to) &&
         CommitTable(layout.rare, region, to) && CommitTable(layout.kinds, region, to) &&
         CommitTable(layout.queue, region, to) && CommitTable(layout.noted, region, to) &&
         CommitRange(SliceAddr(from), size_t{to - from} << kSliceShift);
}

uint32_t* BackOf(uint32_t slice) { return reinterpret_cast<uint32_t*>(layout.back.base) + slice; }

}  // namespace

bool ArenaInitLocked() {
  if (arena.base != 0) return true;
  layout.spans.stride = kSpanStride;
  layout.back.stride = sizeof(uint32_t);
  layout.marks.stride = kMarkStride;
  layout.fates.stride = kFateStride;
  layout.rare.stride = kRareStride;
  layout.kinds.stride = sizeof(uint8_t);
  layout.queue.stride = sizeof(QueueEntry);
  layout.noted.stride = sizeof(uint8_t);
  if (!plat::AddressSpaceLimited()) {
    // ThreadSanitizer accepts mappings in the uppermost 1.5 TiB only.
    uint32_t most = &__tsan_init != nullptr ? kMaxSlices >> 3 : kMaxSlices;
    for (uint32_t slices = most; slices >= kMaxSlices >> 6; slices >>= 1) {
      if (ReserveAll(slices)) return true;
    }
  }
  StartUnreserved(kUnreservedBase);
  return true;
}

bool ArenaCommitLocked(Region r, uint32_t from, uint32_t to) {
  int region = static_cast<int>(r);
  UNDERGO_ASSERT(from == layout.committed[region] && from < to && to <= layout.limit[region]);
  bool done = CommitAll(region, from, to);
  // Nothing lies in an unreserved range yet: it may start anywhere else.
  for (int attempt = 1; !done && !layout.reserved && from == 0 && attempt < 8; ++attempt) {
    StartUnreserved(kUnreservedBase + static_cast<Addr>(attempt) * kUnreservedStride * 2);
    done = CommitAll(region, 0, to);
  }
  if (!done) return false;
  layout.committed[region] = to;
  size_t size = size_t{to} << kSliceShift;
  if (!layout.reserved && size > arena.size) StoreRelease(&arena.size, size);  // pairs: readers
  return true;
}

uint32_t RegionBegin(Region r) { return layout.begin[static_cast<int>(r)]; }
uint32_t RegionLimit(Region r) { return layout.limit[static_cast<int>(r)]; }

bool ArenaIsUnreserved() { return !layout.reserved; }

void ArenaDiscardMarks(uint32_t at, uint32_t count) {
  for (const Table* t : {&layout.marks, &layout.fates}) {
    // Whole pages: what shares one with other slices stays.
    Addr from = AlignUp(t->base + at * t->stride, kOsPageSize);
    Addr to = AlignDown(t->base + size_t{at + count} * t->stride, kOsPageSize);
    if (from < to) plat::Discard(from, to - from);
  }
}

void ArenaReleaseReservationLocked() {
  if (!layout.reserved) return;
  layout.reserved = false;
  uint32_t lower = layout.committed[0], upper = layout.committed[1];
  bool upper_used = upper > layout.begin[1];
  // Addresses between the regions lose their headers: from here on FindSpan looks at the bounds.
  StoreRelease(&arena.size, size_t{upper_used ? upper : lower} << kSliceShift);  // pairs: readers
  plat::Unmap(SliceAddr(lower), size_t{layout.begin[1] - lower} << kSliceShift);
  plat::Unmap(SliceAddr(upper), size_t{layout.capacity - upper} << kSliceShift);
  for (Table* t : {&layout.spans, &layout.back, &layout.marks, &layout.fates, &layout.rare,
                   &layout.kinds, &layout.queue, &layout.noted}) {
    Addr upper_start = t->base + AlignDown(size_t{layout.begin[1]} * t->stride, kOsPageSize);
    if (upper_start > t->committed[0]) plat::Unmap(t->committed[0], upper_start - t->committed[0]);
    Addr table_end = t->base + TableBytes(*t, layout.capacity);
    if (table_end > t->committed[1]) plat::Unmap(t->committed[1], table_end - t->committed[1]);
  }
}

void ForgetMarks() {
  for (int r = 0; r < kRegions; ++r) {
    for (uint32_t i = layout.begin[r], end = LoadRelaxed(&layout.committed[r]); i < end; ++i) {
      StoreRelaxed(NotedMarks(i), uint8_t{0});
    }
  }
}

Span* FindSpan(Addr a) {
  if (a - arena.base >= LoadAcquire(&arena.size)) return nullptr;  // pairs: ArenaCommitLocked
  uint32_t slice = SliceOf(a);
  bool lower = slice < LoadRelaxed(&layout.committed[0]);
  bool upper = slice >= layout.begin[1] && slice < LoadRelaxed(&layout.committed[1]);
  if (!lower && !upper) return nullptr;
  uint32_t back = LoadRelaxed(BackOf(slice));
  if (back > slice) return nullptr;
  Span* s = SpanAtSlice(slice - back);
  if (LoadRelaxed(&s->state) == SpanState::kFree || back >= LoadRelaxed(&s->slices)) return nullptr;
  return s;
}

void SetSpanSlices(Span* s, uint32_t slices) {
  uint32_t first = SliceOfSpan(s);
  for (uint32_t i = 0; i < slices; ++i) StoreRelaxed(BackOf(first + i), i);
  s->slices = slices;
}

}  // namespace undergo::heap
