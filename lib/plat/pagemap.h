// SPDX-License-Identifier: Apache-2.0
// Which pages of the process can hold something that the program wrote.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// What to do with pages that belong to a file and not to the process alone. In a private mapping
// they are as the file is; in a shared one the process may have written them.
enum class FilePages : uint8_t { kReport, kSkip };

// Looks at pages through /proc/self/pagemap, open as long as the object lives.
class PageMap {
 public:
  PageMap();
  ~PageMap();
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  // The page tables can be read; else only mincore answers.
  bool IsExact() const { return fd_ >= 0; }

  // Calls f for each run of pages that are present or swapped out, without those of the kernel's
  // zeros. On kernels without PAGEMAP_SCAN (before 6.7) and when not exact, more pages may be
  // reported. Not seen: what is swapped out, of shared memory always, of all memory when not exact
  // (Mapping::swapped in plat/maps.h tells).
  // False when no source answers: then the whole range was reported.
  bool ForEachRun(Addr from, Addr to, FilePages files, void (*f)(void* context, Addr from, Addr to),
                  void* context) const;

  // The page at `page` is in memory or in swap as far as can be known.
  bool IsPresent(Addr page) const;

 private:
  long fd_;  // below 0: cannot be opened
};

// One range, all pages of files; the whole range when swapped pages would not be seen.
bool ForEachWrittenToPageRun(Addr from, size_t size, void (*f)(void* context, Addr from, Addr to),
                             void* context);

// The machine has swapped something out: pages may hold data without being in memory.
bool SwapInUse();

}  // namespace undergo::plat
