// SPDX-License-Identifier: Apache-2.0
// Black-listing (Boehm): slices that no small object should be put into, because words in live
// memory name them although nothing is there.
//
// Random data (compressed, encrypted, floating point) has words that happen to be addresses of the
// heap's range, about one in 2^17 for each GiB of heap, and an object at such an address stays for
// ever, with all that it points to. While nothing is there yet, the marker sees the word as a
// pointer into a free slice, and the slice is left free. That costs address space, not memory.
#pragma once

#include "heap/arena.h"

namespace undergo::heap {

// What the last two mark phases found: bits by slice.
class Blacklist {
 public:
  // Before a mark phase: forgets the older half. One thread.
  void Begin();
  // Any thread, while marking.
  void Add(uint32_t slice) {
    uint64_t* word = &bits_[LoadRelaxed(&newer_)][slice / 64];
    uint64_t bit = uint64_t{1} << (slice % 64);
    if ((LoadRelaxed(word) & bit) != 0) return;
    FetchOrAcqRel(word, bit);  // pairs: nothing, a hint
    StoreRelaxed(&any_[LoadRelaxed(&newer_)], true);
  }
  // Slices 64 * w and following that Add was called for since Begin; none: 0 for all w.
  uint64_t NewWord(uint32_t w) const {
    uint32_t newer = LoadRelaxed(&newer_);
    return LoadRelaxed(&any_[newer]) ? LoadRelaxed(&bits_[newer][w]) : 0;
  }
  bool any() const { return LoadRelaxed(&any_[0]) || LoadRelaxed(&any_[1]); }
  // Bits of slices 64 * w and following.
  uint64_t Word(uint32_t w) const { return LoadRelaxed(&bits_[0][w]) | LoadRelaxed(&bits_[1][w]); }

 private:
  static constexpr size_t kWords = kMaxSlices / 64;
  uint32_t newer_ = 0;  // atomic; written by Begin
  bool any_[2] = {};    // atomic; the half has bits
  // Without memory until bits are set. Atomic.
  alignas(kOsPageSize) uint64_t bits_[2][kWords] = {};
};
extern constinit Blacklist blacklist;

}  // namespace undergo::heap
