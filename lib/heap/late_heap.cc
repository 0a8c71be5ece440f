// SPDX-License-Identifier: Apache-2.0
// The late heap: see the header.
#include "heap/late_heap.h"

#include "base/assert.h"
#include "heap/heap_stats.h"
#include "heap/mcache.h"
#include "heap/mheap.h"
#include "heap/sweep.h"

namespace undergo::heap {

namespace {

// Spans of each class, newest first, linked by `next`; they only ever get more.
constinit Span* late_spans[kNumClasses] = {};

void* TakeSlot(Span* s) {
  // Never waits: the interrupted code of this very thread may be the sweeper.
  if (NeedsSweep(s) && !SweepSpan(s).swept && NeedsSweep(s)) return nullptr;
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t bits = LoadRelaxed(&s->remote_bits[w]);
    while (bits != 0) {
      uint64_t bit = bits & -bits;
      // Pairs with the free that set the bit: its writes to the slot are over.
      bool cleared;
      if (gc_heap.enabled) FetchAddRelaxed(&gc_heap.live_bytes, GcTakeSlots(s, w, bit, &cleared));
      uint64_t found = FetchAndAcqRel(&s->remote_bits[w], ~bit);
      // The world may stop at the end of the caller's scope: the address must exist then.
      void* p =
          reinterpret_cast<void*>(SpanAddr(s) + size_t{w * 64 + LowestBit(bit)} * s->slot_size);
      asm volatile("" : "+r"(p));
      if (found & bit) return p;
      bits = found & ~bit;
    }
  }
  return nullptr;
}

Span* NewLateSpan(uint32_t cls, bool reentrant) {
  const SizeClass& c = kClasses[cls];
  bool zeroed;
  Span* s = reentrant ? mheap.AllocSpanReentrant(c.slices, &zeroed)
                      : mheap.AllocSpan(c.slices, 1, SpanUse::kOther, Growth::kYes, &zeroed);
  if (s == nullptr) return nullptr;
  s->owner = nullptr;
  s->magic = 0;
  s->slot_size = c.size;
  s->slots = c.slots;
  s->cls = static_cast<uint8_t>(cls);
  s->usable = UsableOf(cls);
  StoreRelaxed(&s->pending, 1u);  // never pushed to a ready stack
  for (uint32_t w = 0; w < s->words(); ++w) {
    s->free_bits[w] = 0;
    s->remote_bits[w] = s->ValidBits(w);
  }
  GcNewSpan(s);
  StoreRelease(&s->state, SpanState::kLate);  // pairs: FindSpan
  return s;
}

}  // namespace

void* LateMalloc(uint32_t cls, bool reentrant, bool* zeroed) {
  BusyScope busy;
  *zeroed = false;
  CountLate(cls);
  for (Span* s = LoadAcquire(&late_spans[cls]); s != nullptr; s = s->next) {  // pairs: CAS below
    void* p = TakeSlot(s);
    if (p != nullptr) return p;
  }
  Span* s = NewLateSpan(cls, reentrant);
  if (s == nullptr) return nullptr;
  void* p = TakeSlot(s);
  Span* head = LoadRelaxed(&late_spans[cls]);
  do {
    s->next = head;
  } while (!CasAcqRel(&late_spans[cls], &head, s));  // pairs: load above
  return p;
}

}  // namespace undergo::heap
