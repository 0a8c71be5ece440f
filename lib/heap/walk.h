// SPDX-License-Identifier: Apache-2.0
// Looking at the heap from outside: address to object, all spans, all objects.
//
// Exact while the mutators of the spans are stopped or absent; otherwise a snapshot in which single
// words may be newer than others. Nothing here blocks.
#pragma once

#include "heap/arena.h"
#include "heap/mheap.h"

namespace undergo::heap {

struct Object {
  Span* span;
  uint32_t slot;
  Addr base;
  size_t size;     // usable bytes
  bool allocated;  // handed out and not freed
};

// Slots of word `w` that the program holds.
uint64_t AllocatedBits(const Span* s, uint32_t w);

// The object that contains the address, interior addresses included, in constant time. False for
// addresses outside the heap, in free slices or in the unused tail of a span.
bool FindObject(Addr a, Object* out);

// Calls f(Span*) for each span in use, in address order. Spans made or released meanwhile may or
// may not be seen.
template <typename F>
void ForEachSpan(F f) {
  for (Region r : {Region::kLower, Region::kUpper}) {
    uint32_t end = mheap.end(r);
    for (uint32_t slice = RegionBegin(r); slice < end;) {
      Span* s = mheap.InUse(slice) ? FindSpan(SliceAddr(slice)) : nullptr;
      if (s == nullptr || SliceOfSpan(s) != slice) {
        ++slice;
        continue;
      }
      uint32_t slices = LoadRelaxed(&s->slices);
      f(s);
      slice += slices != 0 ? slices : 1;
    }
  }
}

// Calls f(slot) for each allocated slot of the span.
template <typename F>
void ForEachAllocatedSlot(const Span* s, F f) {
  for (uint32_t w = 0; w < s->words(); ++w) {
    for (uint64_t bits = AllocatedBits(s, w); bits != 0; bits &= bits - 1) {
      f(w * 64 + LowestBit(bits));
    }
  }
}

}  // namespace undergo::heap
