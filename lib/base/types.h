// SPDX-License-Identifier: Apache-2.0
// Addresses, sizes, alignment helpers and checked arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace undergo {

using Addr = uintptr_t;

inline constexpr size_t kKiB = size_t{1} << 10;
inline constexpr size_t kMiB = size_t{1} << 20;
inline constexpr size_t kGiB = size_t{1} << 30;
inline constexpr size_t kTiB = size_t{1} << 40;

inline constexpr size_t kOsPageSize = 4096;
inline constexpr size_t kHugePageSize = 2 * kMiB;

constexpr bool IsPowerOfTwo(size_t x) { return x != 0 && (x & (x - 1)) == 0; }
constexpr size_t AlignDown(size_t x, size_t align) { return x & ~(align - 1); }
constexpr size_t AlignUp(size_t x, size_t align) { return (x + align - 1) & ~(align - 1); }

constexpr size_t Min(size_t a, size_t b) { return a < b ? a : b; }
constexpr size_t Max(size_t a, size_t b) { return a > b ? a : b; }

// True when the product does not fit; otherwise stores it.
inline bool MulOverflows(size_t a, size_t b, size_t* product) {
  return __builtin_mul_overflow(a, b, product);
}

}  // namespace undergo
