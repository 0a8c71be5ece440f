// SPDX-License-Identifier: Apache-2.0
// Word and bitmap scans.
#pragma once

#include <cstdint>

#include "base/types.h"

namespace undergo {

inline uint32_t LowestBit(uint64_t w) { return static_cast<uint32_t>(__builtin_ctzll(w)); }
inline uint32_t HighestBit(uint64_t w) { return 63 - static_cast<uint32_t>(__builtin_clzll(w)); }
inline uint32_t CountBits(uint64_t w) { return static_cast<uint32_t>(__builtin_popcountll(w)); }
constexpr uint64_t LowMask(uint32_t n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

// First bit at or above `from` in words[0..bits) that is set (or clear, by `value`); `bits` if
// none.
inline size_t FindBit(const uint64_t* words, size_t bits, size_t from, bool value) {
  while (from < bits) {
    uint64_t w = words[from / 64];
    if (!value) w = ~w;
    w >>= from % 64;
    if (w != 0) {
      size_t at = from + LowestBit(w);
      return at < bits ? at : bits;
    }
    from = AlignDown(from, 64) + 64;
  }
  return bits;
}

inline void SetBits(uint64_t* words, size_t from, size_t count, bool value) {
  while (count > 0) {
    uint32_t at = from % 64;
    uint32_t n = static_cast<uint32_t>(Min(64 - at, count));
    uint64_t mask = LowMask(n) << at;
    if (value) {
      words[from / 64] |= mask;
    } else {
      words[from / 64] &= ~mask;
    }
    from += n;
    count -= n;
  }
}

inline bool TestBit(const uint64_t* words, size_t i) { return (words[i / 64] >> (i % 64)) & 1; }

inline size_t CountBitsIn(const uint64_t* words, size_t from, size_t count) {
  size_t total = 0;
  while (count > 0) {
    uint32_t at = from % 64;
    uint32_t n = static_cast<uint32_t>(Min(64 - at, count));
    total += CountBits(words[from / 64] & (LowMask(n) << at));
    from += n;
    count -= n;
  }
  return total;
}

}  // namespace undergo
