// SPDX-License-Identifier: Apache-2.0
// What happens when the program frees what it must not free.
#pragma once

#include "base/types.h"

namespace undergo::heap {

enum class BadFree { kDouble, kDoubleLate, kInterior, kWild, kDoubleLarge, kFreed };

// Prints one line (kind, address, size class, caller) and aborts, or goes on when the setting
// tolerates it. `caller` is the address that called into the library, null when not known.
void ReportBadFree(BadFree kind, const void* p, const char* function, void* caller);

// What the heap asks of the layers above; filled in by boot, null at first.
struct HeapClient {
  // A pointer outside the heap: frees it if it belongs to another allocator, false when not.
  bool (*free_foreign)(void* p);
  // Its usable size there; false when no allocator knows it.
  bool (*foreign_size)(void* p, size_t* size);
};
extern constinit HeapClient heap_client;
// UNDERGO=badfree=ignore
extern constinit bool tolerate_bad_free;

}  // namespace undergo::heap
