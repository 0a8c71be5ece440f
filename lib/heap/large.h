// SPDX-License-Identifier: Apache-2.0
// Large objects: one object that has a span of its own.
#pragma once

#include "heap/span.h"

namespace undergo::heap {

// size > 0; the address is a multiple of align_slices slices. Null when there is no memory.
void* MallocLarge(size_t size, uint32_t align_slices, bool want_zero);
// Grows or shrinks where it is; false when it cannot.
bool ResizeLarge(Span* s, size_t size);
// False: it was freed before.
bool FreeLarge(Span* s);
// Large objects that were freed by signal handlers inside the heap go back to the page heap.
// BusyScope held.
void DrainDeferredLarge();

}  // namespace undergo::heap
