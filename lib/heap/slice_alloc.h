// SPDX-License-Identifier: Apache-2.0
// Which slices are in use, and which of the free ones may hold old data: two bitmaps.
#pragma once

#include "base/types.h"

namespace undergo::heap {

class Blacklist;

// First fit by address over a bitmap. Not thread safe: the mheap lock protects it.
class SliceAlloc {
 public:
  static constexpr uint32_t kNone = ~0u;

  // Bitmaps of `capacity` bits, zeroed, owned by the caller.
  constexpr SliceAlloc(uint64_t* used, uint64_t* dirty, uint64_t* aged, uint64_t* stale)
      : used_(used), dirty_(dirty), aged_(aged), stale_(stale) {}

  // Manages slices from `begin` on; called once, before anything else. Alignment is that of the
  // slice's address: its number plus `phase`.
  void SetBegin(uint32_t begin, uint64_t phase);
  // Slices of [begin, end) exist. They start free and clean.
  void Grow(uint32_t end) { end_ = end; }
  uint32_t begin() const { return begin_; }
  uint32_t end() const { return end_; }

  // Takes `count` free slices, the first aligned to `align` slices (a power of two); kNone if there
  // are no such slices yet.
  uint32_t Alloc(uint32_t count, uint32_t align);
  // The same for 1, 2 or 4 slices, without those that are blacklisted.
  uint32_t AllocAvoiding(uint32_t count, const Blacklist& list);
  // Takes exactly [at, at+count); false if any of it is in use or does not exist.
  bool AllocAt(uint32_t at, uint32_t count);
  // `dirty`: the memory may be resident and hold old data.
  void Free(uint32_t at, uint32_t count, bool dirty);

  // Some of it may hold old data.
  bool IsDirty(uint32_t at, uint32_t count) const;
  // The slices, which are in use, were given back to the system. `stale`: lazily, so that they may
  // still hold old data.
  void SetClean(uint32_t at, uint32_t count, bool stale);
  // Length of the free run that ends at the end of what exists.
  uint32_t FreeTail() const;

  uint32_t used_slices() const { return used_count_; }
  uint32_t dirty_free_slices() const { return dirty_free_; }

  // Aging, for a delayed purge. AgeAll() marks every free dirty slice as old; allocation and free
  // take the mark off. FindAged() finds the next run of old slices at or after `from`.
  void AgeAll();
  bool FindAged(uint32_t from, uint32_t max_count, uint32_t* at, uint32_t* count) const;
  // The last run of free dirty slices, old or not, that ends at or below `to`.
  bool FindDirtyBelow(uint32_t to, uint32_t max_count, uint32_t* at, uint32_t* count) const;
  // Free slices with the dirty mark in [at, at+count).
  uint32_t CountDirtyFree(uint32_t at, uint32_t count) const;
  // Free slices with the aged mark in [at, at+count).
  uint32_t CountAged(uint32_t at, uint32_t count) const;

 private:
  void Take(uint32_t at, uint32_t count);

  static constexpr int kHints = 25;

  uint64_t* used_;
  uint64_t* dirty_;
  uint64_t* aged_;      // subset of free and dirty
  uint64_t* stale_;     // given back lazily since they were dirty
  uint32_t begin_ = 0;  // slices
  uint64_t phase_ = 0;  // slices
  uint32_t end_ = 0;    // slices
  uint32_t used_count_ = 0;
  uint32_t dirty_free_ = 0;     // free slices with the dirty bit
  uint32_t hint_[kHints] = {};  // no free run of 2^k or more slices begins below hint_[k]
};

}  // namespace undergo::heap
