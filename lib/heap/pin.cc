// SPDX-License-Identifier: Apache-2.0
// Pins: see the header.
//
// The marker takes all pinned objects as roots, once while the program runs and again in the final
// stop, for those that were pinned meanwhile. So it has to find the spans that have pins without
// looking at all: they are linked in a list that only grows.
#include "heap/pin.h"

namespace undergo::heap {

constinit Span* pinned_spans = nullptr;

namespace {

void PinBits(Span* s, uint32_t w, uint64_t bits) {
  FetchOrAcqRel(RareBits(s, RarePlane::kPinned) + w, bits);  // pairs: ClearPins
  if (LoadRelaxed(&s->has_pins) != 0 || ExchangeAcqRel(&s->has_pins, 1u) != 0) return;
  Span* head = LoadRelaxed(&pinned_spans);
  do {
    s->pin_next = head;
  } while (!CasAcqRel(&pinned_spans, &head, s));  // pairs: ForEachPinned
}

}  // namespace

void Pin(const void* p) {
  Object o;
  Addr a = reinterpret_cast<Addr>(p);
  if (!FindObject(a, &o) || o.base != a) return;
  PinBits(o.span, o.slot / 64, uint64_t{1} << (o.slot % 64));
}

void PinAll() {
  ForEachSpan([](Span* s) {
    if (LoadRelaxed(&s->state) == SpanState::kLarge) return PinBits(s, 0, 1);
    for (uint32_t w = 0; w < s->words(); ++w) {
      uint64_t bits = AllocatedBits(s, w);
      if (bits != 0) PinBits(s, w, bits);
    }
  });
}

bool IsPinned(const void* p) {
  if (LoadRelaxed(&pinned_spans) == nullptr) return false;
  Object o;
  if (!FindObject(reinterpret_cast<Addr>(p), &o) || LoadRelaxed(&o.span->has_pins) == 0) {
    return false;
  }
  uint64_t bits = LoadRelaxed(RareBits(o.span, RarePlane::kPinned) + o.slot / 64);
  return ((bits >> (o.slot % 64)) & 1) != 0;
}

void ClearPins(Span* s, uint32_t w, uint64_t bits) {
  FetchAndAcqRel(RareBits(s, RarePlane::kPinned) + w, ~bits);  // pairs: PinBits
}

void ClearAllPins(Span* s) {
  uint64_t* pins = RareBits(s, RarePlane::kPinned);
  for (uint32_t w = 0; w < s->words(); ++w) StoreRelaxed(&pins[w], uint64_t{0});
}

}  // namespace undergo::heap
