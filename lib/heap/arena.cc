// SPDX-License-Identifier: Apache-2.0
// Reservation and commitment of the heap's range and of its tables.
#include "heap/arena.h"

#include "base/assert.h"
#include "plat/vm.h"

namespace undergo::heap {

constinit ArenaRange arena;

namespace {

// One table: `stride` bytes for each slice, committed from slice 0 upwards.
struct Table {
  size_t stride = 0;
  Addr base = 0;
  size_t committed = 0;  // bytes, page aligned
};

struct Layout {
  uint32_t capacity = 0;  // slices
  bool reserved = false;
  Table spans;
  Table back;             // uint32_t: slices from the first slice of the span
  Table marks;
};

constinit Layout layout;

constexpr size_t kMarkStride = kMarkPlanes * kMaxWords * sizeof(uint64_t);

// Unreserved operation begins here: far below the kernel's own placements and above the shadow
// memory of sanitizers. A few tries with a stride find room even when somebody was here before.
constexpr Addr kUnreservedBase = Addr{0x2000} << 32;
constexpr Addr kUnreservedStride = Addr{0x100} << 32;

size_t TableBytes(const Table& t, uint32_t slices) {
  return AlignUp(size_t{slices} * t.stride, kOsPageSize);
}

size_t MetadataBytes(uint32_t slices) {
  return TableBytes(layout.spans, slices) + TableBytes(layout.back, slices) +
         TableBytes(layout.marks, slices);
}

void PlaceTables(Addr at, uint32_t slices) {
  for (Table* t : {&layout.spans, &layout.back, &layout.marks}) {
    t->base = at;
    at += TableBytes(*t, slices);
  }
  arena.spans = layout.spans.base;
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
  PlaceTables(reinterpret_cast<Addr>(tables), slices);
  arena.base = AlignUp(reinterpret_cast<Addr>(heap), kHugePageSize);
  arena.size = heap_bytes;
  layout.capacity = slices;
  layout.reserved = true;
  return true;
}

void StartUnreserved(Addr base) {
  layout.capacity = kMaxSlices;
  layout.reserved = false;
  arena.base = base;
  arena.size = 0;
  PlaceTables(base + (size_t{kMaxSlices} << kSliceShift), kMaxSlices);
}

bool CommitRange(Addr at, size_t size) {
  return layout.reserved ? plat::Commit(at, size) : plat::MapAt(at, size);
}

bool CommitTable(Table& t, uint32_t slices) {
  size_t wanted = TableBytes(t, slices);
  if (wanted <= t.committed) return true;
  if (!CommitRange(t.base + t.committed, wanted - t.committed)) return false;
  t.committed = wanted;
  return true;
}

uint32_t* BackOf(uint32_t slice) {
  return reinterpret_cast<uint32_t*>(layout.back.base) + slice;
}

}  // namespace

bool ArenaInitLocked() {
  if (arena.base != 0) return true;
  layout.spans.stride = kSpanStride;
  layout.back.stride = sizeof(uint32_t);
  layout.marks.stride = kMarkStride;
  if (!plat::AddressSpaceLimited()) {
    for (uint32_t slices = kMaxSlices; slices >= kMaxSlices >> 6; slices >>= 1) {
      if (ReserveAll(slices)) return true;
    }
  }
  StartUnreserved(kUnreservedBase);
  return true;
}

bool ArenaCommitLocked(uint32_t from, uint32_t to) {
  UNDERGO_ASSERT(from < to && to <= layout.capacity);
  // Tables first: an address inside the range always has a readable header.
  if (!CommitTable(layout.spans, to) || !CommitTable(layout.back, to)) return false;
  size_t bytes = size_t{to - from} << kSliceShift;
  if (!CommitRange(SliceAddr(from), bytes)) {
    if (layout.reserved || from != 0) return false;
    // Nothing lies in the range yet: it may start anywhere else.
    for (int attempt = 1; attempt < 8; ++attempt) {
      layout.spans.committed = layout.back.committed = 0;
      StartUnreserved(kUnreservedBase + static_cast<Addr>(attempt) * kUnreservedStride * 2);
      if (CommitTable(layout.spans, to) && CommitTable(layout.back, to) &&
          CommitRange(SliceAddr(0), bytes)) {
        break;
      }
      if (attempt == 7) return false;
    }
  }
  if (!layout.reserved) {
    StoreRelease(&arena.size, size_t{to} << kSliceShift);  // pairs: readers of arena.size
  }
  return true;
}

uint32_t ArenaCapacity() { return layout.capacity; }

bool ArenaIsUnreserved() { return !layout.reserved; }

void ArenaReleaseReservationLocked(uint32_t from) {
  if (!layout.reserved) return;
  layout.reserved = false;
  StoreRelease(&arena.size, size_t{from} << kSliceShift);  // pairs: readers of arena.size
  plat::Unmap(SliceAddr(from), size_t{layout.capacity - from} << kSliceShift);
  for (Table* t : {&layout.spans, &layout.back, &layout.marks}) {
    plat::Unmap(t->base + t->committed, TableBytes(*t, layout.capacity) - t->committed);
  }
}

Span* FindSpan(Addr a) {
  if (a - arena.base >= LoadAcquire(&arena.size)) return nullptr;  // pairs: ArenaCommitLocked
  uint32_t slice = SliceOf(a);
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

uint64_t* MarkBits(const Span* s, uint32_t plane) {
  uint32_t slice = SliceOfSpan(s);
  if (!CommitTable(layout.marks, slice + 1)) return nullptr;
  return reinterpret_cast<uint64_t*>(layout.marks.base + size_t{slice} * kMarkStride) +
         size_t{plane} * kMaxWords;
}

}  // namespace undergo::heap
