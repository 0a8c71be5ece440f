// SPDX-License-Identifier: Apache-2.0
// The allocator's interface for the exported functions: sizes, alignment, realloc, usable size.
// Functions that return null set errno to ENOMEM; none else touches errno.
#pragma once

#include "base/types.h"

namespace undergo::heap {

// Larger requests fail, as with glibc.
inline constexpr size_t kMaxRequest = static_cast<size_t>(PTRDIFF_MAX);

// `align` must be a power of two.
void* MallocAligned(size_t align, size_t size);

// As C's realloc for p != null and size > 0. Null with ENOMEM leaves the object as it was.
void* Realloc(void* p, size_t size, void* caller);

// Bytes that the program may use of the object that starts at p, which may also belong to another
// allocator; 0 with a report when it is nobody's.
// The report names `function`.
size_t UsableSize(void* p, void* caller, const char* function = "malloc_usable_size");

// Usable bytes that a request of this size gets.
size_t GoodSize(size_t size);

// Returns free memory to the system; true when some was.
bool Trim();

}  // namespace undergo::heap
