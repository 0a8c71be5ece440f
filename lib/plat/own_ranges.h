// SPDX-License-Identifier: Apache-2.0
// The address ranges that belong to the library. They are never roots: the mark queues are full of
// addresses of dead objects. plat/vm.h enters and removes all that it maps and unmaps.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Both are lock-free, never allocate by malloc and may be called in signal handlers and after fork.
// A range is entered after it was mapped and removed before it is unmapped, so that memory of the
// program is never taken for ours. Removing a part of a range keeps the rest.
void AddOwnRange(Addr from, size_t size);
void RemoveOwnRange(Addr from, size_t size);

// Enters the data segments of the module that this code is linked into. Idempotent.
void AddOwnModule();

// Calls f for each range, in no order, until it returns false; then false. Ranges that are entered
// or removed meanwhile may be left out, and a range may be reported in two pieces.
bool ForEachOwnRange(bool (*f)(void* context, Addr from, Addr to), void* context);

}  // namespace undergo::plat
