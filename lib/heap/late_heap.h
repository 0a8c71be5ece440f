// SPDX-License-Identifier: Apache-2.0
// The late heap: allocation for callers that may not use an mcache.
//
// Those are threads that gave theirs back (glibc frees and allocates after the last destructor),
// signal handlers that interrupted the heap itself, and threads for which no mcache could be made.
// Its spans keep their free slots in remote_bits, so allocation is a compare-and-swap, free is the
// ordinary remote free, and no step waits for a lock that the interrupted thread may hold.
#pragma once

#include "base/types.h"

namespace undergo::heap {

// A slot of the class, or null. *zeroed: the memory reads as zero. Never waits when `reentrant`.
void* LateMalloc(uint32_t cls, bool reentrant, bool* zeroed);

}  // namespace undergo::heap
