// SPDX-License-Identifier: Apache-2.0
// Slow half of free: other owners, larger spans, large objects, foreign pointers, mistakes.
#include "base/assert.h"
#include "heap/bad_free.h"
#include "heap/fastpath.h"
#include "heap/large.h"
#include "heap/quarantine.h"

namespace undergo::heap {

namespace {

constexpr const char* kFunction = "free";

void FreeLocal(Span* s, uint32_t slot) {
  uint64_t bit = uint64_t{1} << (slot % 64);
  asm volatile("orq %1, %0" : "+m"(s->free_bits[slot / 64]) : "r"(bit) : "cc");
  bool event;
  asm volatile("subl $1, %0" : "+m"(s->countdown), "=@ccz"(event) : :);
  if (event) CountdownSlow(s);
}

// True unless the slot was free already.
bool FreeRemote(Span* s, uint32_t slot) {
  uint32_t w = slot / 64;
  uint64_t bit = uint64_t{1} << (slot % 64);
  // Pairs with the harvest: the program's writes to the slot come before its next use.
  uint64_t old = FetchOrAcqRel(&s->remote_bits[w], bit);
  if ((old & bit) != 0) return false;
  if (CountBits(old | bit) >= kClasses[s->cls].notify && LoadRelaxed(&s->pending) == 0) {
    MarkReady(s);
  }
  return true;
}

UNDERGO_COLD void FreeOutside(void* p, void* caller) {
  if (!InArena(p)) {
    if (heap_client.free_foreign != nullptr && heap_client.free_foreign(p)) return;
    return ReportBadFree(BadFree::kWild, p, kFunction, caller);
  }
  const Span* s = SpanAtSlice(SliceOf(reinterpret_cast<Addr>(p)));
  bool was_large = s->large_state == kLargeFreed && reinterpret_cast<Addr>(p) == SpanAddr(s);
  ReportBadFree(was_large ? BadFree::kDoubleLarge : BadFree::kWild, p, kFunction, caller);
}

}  // namespace

void FreeSlow(void* p, void* caller) {
  if (p == nullptr) return;
  Span* s = FindSpan(reinterpret_cast<Addr>(p));
  if (UNDERGO_UNLIKELY(s == nullptr)) return FreeOutside(p, caller);
  Addr offset = reinterpret_cast<Addr>(p) - SpanAddr(s);
  if (s->state == SpanState::kLarge) {
    if (offset != 0) return ReportBadFree(BadFree::kInterior, p, kFunction, caller);
    if (!(QuarantineOn() ? QuarantineFree(s, 0) : FreeLarge(s)))
      ReportBadFree(BadFree::kDoubleLarge, p, kFunction, caller);
    return;
  }
  uint32_t slot = static_cast<uint32_t>(offset) / s->slot_size;
  if (UNDERGO_UNLIKELY(offset != Addr{slot} * s->slot_size || slot >= s->slots)) {
    return ReportBadFree(BadFree::kInterior, p, kFunction, caller);
  }
  if (UNDERGO_UNLIKELY((LoadRelaxed(&s->free_bits[slot / 64]) >> (slot % 64)) & 1)) {
    return ReportBadFree(BadFree::kDouble, p, kFunction, caller);
  }
  if (s->owner == thread_words.mcache) {
    if (UNDERGO_UNLIKELY((CursorBits(s, slot / 64) >> (slot % 64)) & 1)) {
      return ReportBadFree(BadFree::kDouble, p, kFunction, caller);
    }
    if (!QuarantineOn()) return FreeLocal(s, slot);
  }
  if (UNDERGO_UNLIKELY(QuarantineOn())) {
    if (!QuarantineFree(s, slot)) ReportBadFree(BadFree::kDouble, p, kFunction, caller);
    return;
  }
  if (!FreeRemote(s, slot)) ReportBadFree(BadFree::kDouble, p, kFunction, caller);
}

void FreeSlowTail(void* p) { FreeSlow(p, __builtin_return_address(0)); }

void CountdownSlow(Span* s) {
  // Inside the heap already: a signal handler's free. The owner looks at the span later.
  if (thread_words.busy != 0) return MarkReady(s);
  BusyScope busy;
  OnCountdown(thread_words.mcache, s);
}

}  // namespace undergo::heap
