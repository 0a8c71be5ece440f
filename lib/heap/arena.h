// SPDX-License-Identifier: Apache-2.0
// The heap's address range and its parallel tables, all indexed by slice number.
//
// Normally the whole range is reserved at the first allocation, without access and without cost,
// and committed step by step. Where address space is limited (RLIMIT_AS), nothing is reserved:
// the same arithmetic runs over an unused stretch of the address space, and each step is mapped
// when it is needed.
#pragma once

#include "base/compiler.h"
#include "base/types.h"
#include "heap/span.h"

namespace undergo::heap {

inline constexpr uint32_t kMaxSlices = 1u << 24;  // of 64 KiB: 1 TiB
inline constexpr uint32_t kNoSlice = ~0u;

// Planes of bits by slot number, for the collector (heap/sweep.h says what they mean).
enum class Plane : uint32_t { kMarked, kCondemned, kReclaimed };
inline constexpr uint32_t kMarkPlanes = 3;
// The first has a table of its own, as most spans never use the others.
inline constexpr size_t kPlaneBytes = kMaxWords * sizeof(uint64_t);
inline constexpr size_t kMarkStride = kPlaneBytes;
inline constexpr size_t kFateStride = (kMarkPlanes - 1) * kPlaneBytes;
// Planes that few spans use, in a table of their own. kPinned: objects that are never collected
// (heap/pin.h). kFreed: freed by the program, in quarantine (heap/quarantine.h).
enum class RarePlane : uint32_t { kPinned, kFreed };
inline constexpr uint32_t kRarePlanes = 2;
inline constexpr size_t kRareStride = kRarePlanes * kMaxWords * sizeof(uint64_t);

// Read by every malloc and free; written only while growing, under the mheap lock.
struct ArenaRange {
  Addr base = 0;    // first byte of slice 0; 0 before the first allocation
  size_t size = 0;  // addresses base .. base+size-1 have readable span headers
  Addr spans = 0;   // span header of slice 0
  Addr marks = 0;   // plane kMarked of slice 0
  Addr fates = 0;   // the other two of slice 0
  Addr rare = 0;    // rare planes of slice 0
  Addr kinds = 0;   // kind of slice 0
  Addr queue = 0;   // QueueEntry of slice 0
  Addr noted = 0;   // NotedMarks of slice 0
};
extern constinit ArenaRange arena;

inline bool InArena(const void* p) { return reinterpret_cast<Addr>(p) - arena.base < arena.size; }

inline Span* SpanAtSlice(uint32_t slice) {
  return reinterpret_cast<Span*>(arena.spans + size_t{slice} * kSpanStride);
}
inline uint32_t SliceOf(Addr a) { return static_cast<uint32_t>((a - arena.base) >> kSliceShift); }
inline Addr SliceAddr(uint32_t slice) { return arena.base + (Addr{slice} << kSliceShift); }
inline uint32_t SliceOfSpan(const Span* s) {
  return static_cast<uint32_t>((reinterpret_cast<Addr>(s) - arena.spans) / kSpanStride);
}
inline Addr SpanAddr(const Span* s) { return SliceAddr(SliceOfSpan(s)); }

// What the marker has to know of a slice to find an object in it, in one byte, so that looking does
// not cost the span header's line: 1 + size class of a small span in use that has a magic number,
// else 0, and the header tells. Atomic; written by GcNewSpan and GcForgetSpan. As with the span's
// state, who reads it may be late: see gc/marker.cc.
inline uint8_t* KindOf(uint32_t slice) { return reinterpret_cast<uint8_t*>(arena.kinds) + slice; }

// Small objects are scanned span by span (gc/marker.cc). Their spans have few enough slots that a
// second plane, of those that were scanned or need no scan, fits behind the first in its room.
inline constexpr uint32_t kQueuedWords = kMaxWords / 2;
inline constexpr uint32_t kMaxQueuedSize = 512;  // bytes of a slot
inline constexpr bool IsQueuedClass(const SizeClass& k) {
  return k.words <= kQueuedWords && k.size <= kMaxQueuedSize;
}
// The span that begins with a slice, in a marker's queue (gc/span_queue.h).
struct QueueEntry {
  uint32_t waits;  // atomic; 0: it does not, kManyWait, or 1 + the only slot that is to be scanned
  uint32_t next;   // slice behind it, if there is one; of the marker in whose queue it is
};
inline constexpr uint32_t kManyWait = ~0u;
inline QueueEntry* QueueEntryOf(uint32_t slice) {
  return reinterpret_cast<QueueEntry*>(arena.queue) + slice;
}

// Not 0: in the slice may lie something that the mark phase has marked, or counts as marked because
// it was free or was handed out. Atomic.
inline uint8_t* NotedMarks(uint32_t slice) {
  return reinterpret_cast<uint8_t*>(arena.noted) + slice;
}
// After the marks were set, by a locked instruction; any thread.
inline void NoteMarks(uint32_t slice, uint32_t slices) {
  for (uint8_t *at = NotedMarks(slice), *end = at + slices; at < end; ++at) {
    if (LoadRelaxed(at) == 0) StoreRelaxed(at, uint8_t{1});
  }
}
// The same for a large object, which does not use the slack behind it.
inline void NoteLarge(const Span* s) {
  NoteMarks(SliceOfSpan(s),
            static_cast<uint32_t>((s->large_bytes + kSliceSize - 1) >> kSliceShift));
}
// Before marks are reset. One thread; others may note what they hand out.
void ForgetMarks();

// The span in use that covers an address of the arena, or null. Safe for any address at any time;
// what it returns may be freed by another thread meanwhile.
Span* FindSpan(Addr a);

// Records that the span's slices belong to it. The caller has the slices to itself.
void SetSpanSlices(Span* s, uint32_t slices);

// The range has two regions that grow independently: the lower one for everything, the upper one
// for small objects of big heaps, on huge pages. Only a reserved range has the upper one.
enum class Region : uint8_t { kLower, kUpper };
inline constexpr int kRegions = 2;

// Sets up the range on first use; false when there is no address space at all. Mheap lock held.
bool ArenaInitLocked();
// Makes slices [from, to) of one region usable, where `from` is what was committed last; false
// when the system refuses memory. Mheap lock held.
bool ArenaCommitLocked(Region r, uint32_t from, uint32_t to);
// First slice of a region, and the one after its last.
uint32_t RegionBegin(Region r);
uint32_t RegionLimit(Region r);
// True when each commit maps new address space.
bool ArenaIsUnreserved();
// Slices [at, at + count), which are free, need no marks: their memory goes back. The caller has
// the slices to itself.
void ArenaDiscardMarks(uint32_t at, uint32_t count);
// Gives the reserved, uncommitted address space back (the program limits its address space); from
// then on only the lower region grows. Mheap lock held.
void ArenaReleaseReservationLocked();

// Plane kMarked of the span that begins with a slice, without its header.
inline uint64_t* MarkedBits(size_t slice) {
  return reinterpret_cast<uint64_t*>(arena.marks + slice * kMarkStride);
}

inline uint64_t* ScannedBits(size_t slice) { return MarkedBits(slice) + kQueuedWords; }

// Bits of a span, by slot, in one of the planes. No memory until they are written.
inline uint64_t* MarkBits(const Span* s, Plane plane) {
  size_t slice = SliceOfSpan(s);
  if (plane == Plane::kMarked) return MarkedBits(slice);
  return reinterpret_cast<uint64_t*>(arena.fates + slice * kFateStride) +
         (static_cast<uint32_t>(plane) - 1) * kMaxWords;
}

inline uint64_t* RareBits(const Span* s, RarePlane plane) {
  return reinterpret_cast<uint64_t*>(arena.rare + size_t{SliceOfSpan(s)} * kRareStride) +
         static_cast<uint32_t>(plane) * kMaxWords;
}

}  // namespace undergo::heap
