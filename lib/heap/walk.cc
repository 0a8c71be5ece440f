// SPDX-License-Identifier: Apache-2.0
// Address to object.
#include "heap/walk.h"

#include "heap/mcache.h"
#include "heap/quarantine.h"

namespace undergo::heap {

uint64_t AllocatedBits(const Span* s, uint32_t w) {
  uint64_t free = LoadRelaxed(&s->free_bits[w]) | LoadAcquire(&s->remote_bits[w]);  // pairs: frees
  return s->ValidBits(w) & ~free & ~CursorBits(s, w);
}

bool FindObject(Addr a, Object* out) {
  Span* s = FindSpan(a);
  if (s == nullptr) return false;
  Addr start = SpanAddr(s);
  if (s->state == SpanState::kLarge) {
    if (a - start >= s->large_bytes) return false;
    bool live = LoadRelaxed(&s->large_state) == kLargeLive && !IsQuarantined(s, 0);
    *out = {s, 0, start, s->large_bytes, live};
    return true;
  }
  uint32_t offset = static_cast<uint32_t>(a - start);
  uint32_t slot = s->magic != 0 ? static_cast<uint32_t>((uint64_t{offset} * s->magic) >> 32)
                                : offset / s->slot_size;
  if (slot >= s->slots) return false;
  bool allocated = ((AllocatedBits(s, slot / 64) >> (slot % 64)) & 1) && !IsQuarantined(s, slot);
  *out = {s, slot, start + size_t{slot} * s->slot_size, s->slot_size, allocated};
  return true;
}

}  // namespace undergo::heap
