// SPDX-License-Identifier: Apache-2.0
// The page heap: hands out spans as runs of slices, takes them back, and gives memory that stays
// unused back to the system, delayed and rate-limited. Small objects of big heaps lie on huge
// pages.
//
// Context: callers hold a BusyScope (heap/thread_words.h), so that a signal handler that allocates
// in between never waits for the lock that its own thread holds.
#pragma once

#include "heap/arena.h"
#include "heap/slice_alloc.h"
#include "sync/mutex.h"

namespace undergo::heap {

struct MHeapStats {
  uint64_t committed_bytes;   // address space that may hold memory
  uint64_t in_use_bytes;      // in spans
  uint64_t dirty_free_bytes;  // free, may be resident
  uint64_t purged_bytes;      // given back so far
  uint64_t spans_allocated;   // so far
  uint64_t peak_in_use_bytes;
};

// When small objects get transparent huge pages: never, once the heap is big, or from the start.
enum class HugePages : uint8_t { kOff, kAuto, kAlways };

// Whether a span is likely to be filled soon, so that huge pages pay.
enum class SpanUse : uint8_t { kDense, kOther };

// Whether an allocation may take new address space into use.
enum class Growth : uint8_t { kNo, kYes };

class MHeap {
 public:
  constexpr MHeap(uint64_t* used, uint64_t* dirty, uint64_t* aged, uint64_t* stale)
      : slices_{{used, dirty, aged, stale}, {used, dirty, aged, stale}} {}

  // A run of `slices` whose first slice number is a multiple of `align_slices`. The span's state is
  // still kFree: the caller fills the header and then sets it. *zeroed tells whether all of the
  // memory reads as zero. Null when there is no memory. Thread safe.
  Span* AllocSpan(uint32_t slices, uint32_t align_slices, SpanUse use, Growth growth, bool* zeroed);
  // The same for a signal handler that interrupted the heap: never waits for its own thread.
  Span* AllocSpanReentrant(uint32_t slices, bool* zeroed);
  // The span's memory may be dirty. Its owner must be null. Thread safe.
  void FreeSpan(Span* s);
  // Grows a span where it is when what follows is free; *zeroed as above for the new part.
  bool ExtendSpan(Span* s, uint32_t slices, bool* zeroed);
  // Cuts the tail of a span off.
  void ShrinkSpan(Span* s, uint32_t slices);

  // Ages and purges by the clock; cheap when nothing is due. Called from slow paths.
  void Tick();
  // Gives all free memory back at once; bytes released.
  size_t PurgeAll();
  // Gives about so much free memory back, of whatever age, the highest addresses first; bytes
  // released.
  size_t Scavenge(size_t bytes);
  // The system gets memory by MADV_FREE: at once for the system, but seen as resident until needed.
  void SetLazyRelease() { StoreRelaxed(&lazy_, true); }
  // Delay before free memory is given back; 0 means within a few ticks, ~0 never.
  void SetPurgeDelay(uint64_t ns);
  void SetHugePages(HugePages mode);
  // Whether the memory of the span comes as huge pages, if the kernel has any.
  bool OnHugePages(const Span* s) const { return SliceOfSpan(s) >= RegionBegin(Region::kUpper); }

  // The program limits its address space: keep what is committed, return the rest.
  void ReleaseReservation();

  MHeapStats stats();
  // Slices that may be in use, by region; for walks.
  uint32_t end(Region r) const {
    return LoadAcquire(&ends_[static_cast<int>(r)]);  // pairs: GrowLocked
  }
  // True when the slice is in use; racy unless the lock is held.
  bool InUse(uint32_t slice) const;

  sync::Mutex& lock() { return lock_; }
  void ResetAfterForkInChild() { lock_.ResetAfterFork(); }

 private:
  SliceAlloc& In(Region r) { return slices_[static_cast<int>(r)]; }
  SliceAlloc& InRegionOf(uint32_t slice);
  uint32_t UsedLocked() const { return slices_[0].used_slices() + slices_[1].used_slices(); }
  uint32_t AllocLocked(uint32_t count, uint32_t align, SpanUse use, Growth growth);
  uint32_t AllocInLocked(Region r, uint32_t count, uint32_t align);
  bool GrowLocked(Region r, uint32_t count, uint32_t align);
  void RefillReserveLocked(Growth growth);
  uint32_t TakeFromReserve(uint32_t count);
  bool PurgeStep(Region r, uint32_t* from, uint32_t max_slices);
  void GiveBack(Region r, uint32_t at, uint32_t count);
  bool ScavengeStep(Region r, uint32_t* to, uint32_t max_slices, uint32_t* released);
  bool NextPurgeLocked(Region r, uint32_t from, uint32_t max, uint32_t* at, uint32_t* count);
  void PurgeSome();
  void Age(uint64_t now);

  sync::Mutex lock_;
  SliceAlloc slices_[kRegions];              // lock_
  uint32_t ends_[kRegions] = {};             // slices that exist; written under lock_
  HugePages huge_pages_ = HugePages::kAuto;  // lock_
  uint64_t reserve_ = 0;                  // first slice << 32 | count; atomic; refilled under lock_
  uint64_t next_age_ns_ = 0;              // lock_; when free memory ages next
  uint64_t purge_delay_ns_ = 1000000000;  // lock_; the setting
  uint32_t backoff_ = 0;                  // lock_; the delay is doubled this many times
  uint32_t purge_cursor_[kRegions] = {};  // relaxed; the purge of this round goes on here
  bool purge_due_ = false;                // aged slices remain; written under lock_, read racily
  bool lazy_ = false;                     // atomic; the setting
  uint64_t fresh_slices_ = 0;             // lock_; clean slices handed out in this round
  uint64_t purged_round_ = 0;             // atomic, reset under lock_; slices purged in the round
  uint64_t purged_slices_ = 0;            // lock_; so far
  uint64_t spans_allocated_ = 0;          // lock_
  uint32_t peak_used_ = 0;                // lock_; slices
};

extern constinit MHeap mheap;

}  // namespace undergo::heap
