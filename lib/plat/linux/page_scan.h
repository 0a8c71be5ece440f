// SPDX-License-Identifier: Apache-2.0
// The PAGEMAP_SCAN request (Linux 6.7), which the headers of older systems do not have.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Categories of a page, as the kernel counts them. A page without page table entry has none but
// kWpAllowed, which is a property of the mapping.
inline constexpr uint64_t kPageWpAllowed = 1 << 0;  // write-protection is tracked here
inline constexpr uint64_t kPageWritten = 1 << 1;    // not write-protected
inline constexpr uint64_t kPageFile = 1 << 2;       // page cache; not a private copy
inline constexpr uint64_t kPagePresent = 1 << 3;
inline constexpr uint64_t kPageSwapped = 1 << 4;  // also entries that are only markers
inline constexpr uint64_t kPageZero = 1 << 5;     // the shared page of zeros

// Flags. Without kScanCheck, mappings that are not tracked are skipped when protecting.
inline constexpr uint64_t kScanProtect = 1 << 0;  // protect what matches, in the same step
inline constexpr uint64_t kScanCheck = 1 << 1;    // fail with EPERM where nothing is tracked

// Ends of the pieces in which long ranges are looked at or released: never inside a huge page.
inline Addr PieceEnd(Addr from, Addr to, size_t piece) {
  return to - from <= piece ? to : AlignDown(from + piece, kHugePageSize);
}

struct PageScan {
  uint64_t flags = 0;
  uint64_t without = 0;  // of `all`: must be absent
  uint64_t all = 0;      // must be present (or absent, by `without`)
  uint64_t any = 0;      // one of them at least; 0: no condition
  // One category, so that the kernel joins neighbours; the visitor does not see it.
  uint64_t returned = kPageWpAllowed;
};

// Calls f for each run of matching pages in [from, to); f may be null. 0, or minus an error number;
// what was reported before an error is right.
long ScanPages(int pagemap, Addr from, Addr to, const PageScan& what,
               void (*f)(void* context, Addr from, Addr to), void* context);

// A descriptor of /proc/self/pagemap, or minus an error number: EACCES for processes that changed
// their user and are not dumpable.
long OpenPagemapFile();

}  // namespace undergo::plat
