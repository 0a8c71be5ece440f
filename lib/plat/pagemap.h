// SPDX-License-Identifier: Apache-2.0
// Which pages of the process can hold something that the program wrote.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Calls f for each run of pages of the range that are present or swapped out and are neither pages
// of a file that nobody changed (private mappings of files) nor the kernel's page of zeros. Pages
// of shared mappings are all reported. On kernels without PAGEMAP_SCAN (before 6.7) the entries of
// /proc/self/pagemap tell; if those cannot be read either, the whole range is one run.
// False when no such information could be had and f got the whole range.
bool ForEachWrittenToPageRun(Addr from, size_t size, void (*f)(void* context, Addr from, Addr to),
                             void* context);

}  // namespace undergo::plat
