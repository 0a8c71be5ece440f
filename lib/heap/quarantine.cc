// SPDX-License-Identifier: Apache-2.0
// Quarantine: see the header.
//
// The fast path of free must not take an object that is to stay. It compares the address with the
// span's magic number; in this mode spans have none, as those of several slices never have, and
// every free ends in FreeSlow. Nothing changes for the other modes.
//
// A bit of the plane means something only while the slot is allocated. It is taken away when the
// slot is handed out again, so a second free of a slot that was reclaimed meanwhile is noticed,
// too.
#include "heap/quarantine.h"

#include "heap/walk.h"

namespace undergo::heap {

void StartQuarantine() {
  ForEachSpan([](Span* s) {
    s->magic = 0;
    StoreRelaxed(KindOf(SliceOfSpan(s)), uint8_t{0});
    ClearAllQuarantined(s);
  });
}

void StopQuarantine() {
  if (QuarantineOn()) StoreRelaxed(&gc_heap.mode, ReclaimMode::kReport);
}

bool QuarantineFree(Span* s, uint32_t slot) {
  uint64_t bit = uint64_t{1} << (slot % 64);
  uint64_t* word = RareBits(s, RarePlane::kFreed) + slot / 64;
  if (((LoadRelaxed(&s->remote_bits[slot / 64]) >> (slot % 64)) & 1) != 0) return false;
  return (FetchOrAcqRel(word, bit) & bit) == 0;  // pairs: itself, of two frees one is the first
}

bool IsQuarantined(const Span* s, uint32_t slot) {
  return QuarantineOn() && ((QuarantinedBits(s, slot / 64) >> (slot % 64)) & 1) != 0;
}

void ClearQuarantined(Span* s, uint32_t w, uint64_t bits) {
  FetchAndAcqRel(RareBits(s, RarePlane::kFreed) + w, ~bits);  // pairs: QuarantineFree
}

void ClearAllQuarantined(Span* s) {
  uint64_t* freed = RareBits(s, RarePlane::kFreed);
  for (uint32_t w = 0; w < s->words(); ++w) StoreRelaxed(&freed[w], uint64_t{0});
}

}  // namespace undergo::heap
