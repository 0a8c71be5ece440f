// SPDX-License-Identifier: Apache-2.0
// Where heap and collector meet: mark bits, sweeping, what the heap tells the collector.
//
// Plane kMarked. While a mark phase runs: slots that need no visit (reached, handed out since it
// began, or free at its start). After the span was swept: slots that count as live bytes.
// Plane kCondemned. Slots that were unreachable at an earlier sweep and wait on probation.
// Plane kReclaimed. Slots that the collector freed, not the program, and nobody used since: they
// are cleared before they are handed out, so that old words in them keep nothing alive.
//
// Flips of `black` and heap_sweepgen happen with the world stopped, and no thread is ever stopped
// inside a BusyScope: each slow path of the heap runs wholly before or wholly after a flip.
#pragma once

#include "heap/arena.h"

namespace undergo::heap {

// A thread tells the collector after so many bytes of new slots, unless it is under stress.
inline constexpr size_t kAllocationBatch = 64 * kKiB;

// What becomes of an object that nothing points to.
enum class ReclaimMode : uint8_t {
  kReclaim,  // probation, then free
  kReport,   // counted only
  kPoison,   // made unusable and watched, never handed out again (heap/poison.h)
  // Kept, unless the program freed it: then it is freed now (heap/quarantine.h).
  kQuarantine,
};

struct GcHeap {
  bool enabled = false;  // set once, before threads exist
  bool black = false;    // from stop 1 to the flip: objects handed out are born marked
  bool unswept = false;  // a sweep is under way
  bool marking = false;  // kMarked has the meaning that it has in a mark phase; atomic
  ReclaimMode mode = ReclaimMode::kReclaim;
  bool leaky = false;         // atomic; a sweep found much garbage: slots are cleared before reuse
  bool clobber = false;       // GODEBUG=clobberfree: fill what is reclaimed, do not clear it
  bool single_slots = false;  // cursors take one slot at a time (heap/site.h)
  size_t notice_bytes = kAllocationBatch;  // on_allocation comes after so many; set once
  bool no_probation = false;               // the memory limit forces the reuse of garbage at once
  uint32_t now_ms = 0;                     // clock of this sweep
  int64_t probation_left = 0;              // atomic; bytes that may still be put on probation
  uint64_t live_bytes = 0;                 // atomic; marked by the last cycle and handed out since
  uint64_t black_bytes = 0;                // atomic; handed out while `black`
  // Classes in which a hidden pointer was proved: never reclaimed. The last one is large objects.
  uint32_t spared[kNumClasses + 1] = {};
};
extern constinit GcHeap gc_heap;

inline uint64_t LiveBytes() {
  auto live = static_cast<int64_t>(LoadRelaxed(&gc_heap.live_bytes));
  return live > 0 ? static_cast<uint64_t>(live) : 0;
}

// What the sweeps found; all atomic, counted since the start of the process.
struct SweepCounts {
  uint64_t reclaimed_objects, reclaimed_bytes;
  uint64_t condemned_objects, condemned_bytes;  // on probation now
  uint64_t resurrected;                         // reachable again, or changed, on probation
  uint64_t hidden_frees;                        // freed by the program on probation
  uint64_t garbage_objects, garbage_bytes;      // found unreachable by the last sweep
};
extern constinit SweepCounts sweep_counts;

// A hidden pointer was proved: the program used or freed an object that nothing pointed to.
struct HiddenUse {
  const char* what;  // "was freed by the program"
  Addr object;
  size_t size;      // of its slot, in bytes
  uint32_t site;    // where it was allocated (heap/site.h), kNoSite when not known
  const Addr* by;   // call chain of who used it; null when not known
  uint32_t frames;  // in `by`
};
using ViolationHook = void (*)(const HiddenUse& use);
extern constinit ViolationHook on_violation;
// Counts it and tells the hook; in the mode kReclaim the object's size class is spared from then
// on.
void ReportHiddenUse(const char* what, const Span* s, uint32_t slot, const Addr* by,
                     uint32_t frames);
// `bytes` of live memory more since the last call; entered outside of BusyScope, any thread.
// *credit is the thread's own, in bytes of allocation, for the collector's use.
using AllocationHook = void (*)(size_t bytes, int64_t* credit);
extern constinit AllocationHook on_allocation;
// A large object of `bytes` is wanted: before it exists, outside of BusyScope, any thread.
using LargeHook = void (*)(size_t bytes);
extern constinit LargeHook before_large;
inline constexpr uint32_t kHasCondemned = 1;  // Span::gc_flags
inline constexpr uint32_t kHasReclaimed = 2;

inline constexpr uint32_t kProbationMs = 10'000;

struct SweepResult {
  bool swept;      // false: it had been swept for this generation, or another thread does it
  uint32_t slots;  // reclaimed
};

// Sweep generation of the heap; a span of an older generation needs sweeping. Go up by two, as in
// Go, with the mutators stopped: generation - 1 means that a sweep is under way.
extern constinit uint32_t heap_sweepgen;

// Frees or condemns the unmarked objects of a small span. Any thread; the owner of the span may
// free meanwhile, and waits in EnsureSwept before it takes slots or harvests.
SweepResult SweepSpan(Span* s);
// The same for a large object; bytes that were freed.
size_t SweepLarge(Span* s);

void EnsureSweptSlow(Span* s);
inline bool NeedsSweep(const Span* s) {
  return LoadRelaxed(&gc_heap.unswept) && LoadAcquire(&s->sweepgen) != LoadRelaxed(&heap_sweepgen);
}
// Returns when the span is swept for this generation. BusyScope held, or world stopped.
inline void EnsureSwept(Span* s) {
  if (UNDERGO_UNLIKELY(NeedsSweep(s))) EnsureSweptSlow(s);
}

// A span gets its first objects; kFree still.
void GcNewSpan(Span* s);
// A span without objects goes away.
void GcForgetSpan(Span* s);
// In a mark phase: slots of word w that are handed out, or may be without further notice.
void MarkWithoutScan(const Span* s, uint32_t w, uint64_t bits);
// `bits` of word w leave the free structure for a cursor. Returns bytes that count as live now;
// *cleared: all of the slots were cleared.
size_t GcTakeSlots(Span* s, uint32_t w, uint64_t bits, bool* cleared);
// A large object is about to be resized.
void GcLargeUsed(Span* s, const char* what);
// A large object was made, resized or freed.
void GcLargeChanged(Span* s, size_t before, size_t after);

// Prepares the marks of a span for a mark phase: free slots need no visit.
void ResetMarks(Span* s);
// Free slots count as marked once more, those included that became free since. World stopped.
void MarkFreeSlots(Span* s);
// In a forked child: a span that a thread of the parent was sweeping keeps all that was not freed.
void KeepHalfSwept(Span* s);
// Between cycles, by the thread that runs them: slots that the program freed do not count as live
// any more. Until then they do, since free() leaves the marks alone, and what is taken in another
// span counts once more. Returns their bytes. A span that is given back or made meanwhile may be
// counted wrong, until the next cycle.
size_t UncountFreed(Span* s);
// After a mark phase that was given up: all objects of the span count as live. Returns their bytes.
size_t RecountMarks(Span* s);

}  // namespace undergo::heap
