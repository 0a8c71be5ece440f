// SPDX-License-Identifier: Apache-2.0
// Objects that are never collected, though the program may free them: those of modules that hide
// pointers (abi/modules.def), and those that proved to be hidden. A pinned object is a root: what
// it points to lives, too.
//
// A pin is a bit in the plane kPinned. It means something only while the slot is allocated, so a
// free need not know of it; it is taken away when the slot is handed out again.
#pragma once

#include "heap/walk.h"

namespace undergo::heap {

// Pins the object that begins at p; other addresses are ignored. Any thread, any time between two
// stops of the world: while the caller holds the address, the object is reachable anyway.
void Pin(const void* p);
// The same for all objects that exist now.
void PinAll();
// What a new owner of the object's contents inherits.
bool IsPinned(const void* p);

// Spans that have or had pins, linked by pin_next; never gets shorter.
extern constinit Span* pinned_spans;

// Pins of slots that the program holds, by word. Only for spans with has_pins.
inline uint64_t PinnedBits(const Span* s, uint32_t w) {
  return LoadRelaxed(RareBits(s, RarePlane::kPinned) + w) & AllocatedBits(s, w);
}
// Slots of word w go to new owners; a span gets its first objects.
void ClearPins(Span* s, uint32_t w, uint64_t bits);
void ClearAllPins(Span* s);

// Calls f(Addr) for each pinned object.
template <typename F>
void ForEachPinned(F f) {
  for (Span* s = LoadAcquire(&pinned_spans); s != nullptr; s = s->pin_next) {  // pairs: PinBits
    Addr start = SpanAddr(s);
    if (FindSpan(start) != s) continue;
    if (LoadRelaxed(&s->state) == SpanState::kLarge) {
      if (LoadRelaxed(RareBits(s, RarePlane::kPinned)) != 0) f(start);
      continue;
    }
    for (uint32_t w = 0; w < s->words(); ++w) {
      for (uint64_t bits = PinnedBits(s, w); bits != 0; bits &= bits - 1) {
        f(start + (size_t{w} * 64 + LowestBit(bits)) * s->slot_size);
      }
    }
  }
}

}  // namespace undergo::heap
