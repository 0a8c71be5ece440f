// SPDX-License-Identifier: Apache-2.0
// Black-listing (Boehm): slices that no small object should be put into, because words in live
// memory name them although nothing is there.
//
// Random data (compressed, encrypted, floating point) has words that happen to be addresses of the
// heap's range, about one in 2^17 for each GiB of heap, and an object at such an address stays for
// ever, with all that it points to. While nothing is there yet, the marker sees the word as a
// pointer into a free slice, and the slice is left free. That costs address space, not memory.
#pragma once

#include "base/compiler.h"
#include "heap/arena.h"

namespace undergo::heap {

// What the last two mark phases found: bits by slice.
class Blacklist {
 public:
  // Before a mark phase: forgets the older half. One thread.
  void Begin();
  // Any thread, while marking.
  void Add(uint32_t slice) {
    uint32_t newer = LoadRelaxed(&newer_);
    uint64_t bit = uint64_t{1} << (slice % 64);
    if (!Writable(newer, slice / 64)) return;
    uint64_t* word = &bits_[newer * kWords + slice / 64];
    if ((LoadRelaxed(word) & bit) != 0) return;
    FetchOrAcqRel(word, bit);  // pairs: nothing, a hint
    StoreRelaxed(&any_[newer], true);
  }
  // Slices 64 * w and following that Add was called for since Begin; none: 0 for all w.
  uint64_t NewWord(uint32_t w) const {
    uint32_t newer = LoadRelaxed(&newer_);
    return LoadRelaxed(&any_[newer]) ? LoadRelaxed(&bits_[newer * kWords + w]) : 0;
  }
  bool any() const { return LoadRelaxed(&any_[0]) || LoadRelaxed(&any_[1]); }
  // Bits of slices 64 * w and following.
  uint64_t Word(uint32_t w) const {
    return any() ? LoadRelaxed(&bits_[w]) | LoadRelaxed(&bits_[kWords + w]) : 0;
  }

 private:
  static constexpr size_t kWords = kMaxSlices / 64;  // of a half
  static constexpr size_t kSize = 2 * kWords * sizeof(uint64_t);  // bytes
  static constexpr size_t kPiece = 64 * kKiB;
  static_assert(kSize / kPiece <= 64);

  static size_t PieceOf(uint32_t half, size_t word) {
    return (half * kWords + word) * sizeof(uint64_t) / kPiece;
  }
  bool Writable(uint32_t half, size_t word) {
    return ((LoadAcquire(&writable_) >> PieceOf(half, word)) & 1) != 0 ||  // pairs: MakeWritable
           MakeWritable(PieceOf(half, word));
  }
  UNDERGO_COLD bool MakeWritable(size_t piece);

  uint32_t newer_ = 0;  // atomic; written by Begin
  bool any_[2] = {};    // atomic; the half has bits
  // Both halves, mapped by the first Begin. All of it can be read. Where data is limited, only the
  // pieces that were written to can be written to, as others would be charged; elsewhere all can
  // after the first, because each piece is a mapping more that every stop reads about. Atomic.
  uint64_t* bits_ = nullptr;
  uint64_t writable_ = 0;  // atomic; by piece
};
extern constinit Blacklist blacklist;

}  // namespace undergo::heap
