// SPDX-License-Identifier: Apache-2.0
// Large objects.
//
// Usable size is what was asked for, rounded up to system pages. The run is rounded up to slices,
// which costs address space only: pages that the program may not use stay untouched.
#include "heap/large.h"

#include "base/assert.h"
#include "heap/arena.h"
#include "heap/heap_stats.h"
#include "heap/mcache.h"
#include "heap/mheap.h"
#include "heap/registry.h"

namespace undergo::heap {

namespace {

// Freed by a handler that interrupted the heap; linked by ready_next.
constinit Span* deferred = nullptr;

size_t SlicesFor(size_t size) { return (size + kSliceSize - 1) >> kSliceShift; }

}  // namespace

void* MallocLarge(size_t size, uint32_t align_slices, bool want_zero) {
  size_t slices = SlicesFor(size);
  if (slices > kMaxSlices) return nullptr;
  uint32_t count = static_cast<uint32_t>(slices);
  bool zeroed = false;
  Span* s;
  if (thread_words.busy != 0) {
    if (align_slices != 1) return nullptr;
    s = mheap.AllocSpanReentrant(count, &zeroed);
  } else {
    BusyScope busy;
    DrainDeferredLarge();
    mheap.Tick();
    s = AllocSpanOrReclaim(count, align_slices, SpanUse::kOther, &zeroed);
    if (s == nullptr) {
      ReclaimAll();
      s = mheap.AllocSpan(count, align_slices, SpanUse::kOther, Growth::kYes, &zeroed);
    }
  }
  if (s == nullptr) return nullptr;
  s->magic = 0;
  s->slot_size = 0;
  s->slots = 1;
  s->cls = kLargeClass;
  s->large_bytes = AlignUp(size, kOsPageSize);
  StoreRelaxed(&s->pending, 0u);
  s->free_bits[0] = s->remote_bits[0] = 0;
  StoreRelaxed(&s->large_state, kLargeLive);
  StoreRelease(&s->state, SpanState::kLarge);  // pairs: FindSpan
  CountLarge(s->large_bytes);
  void* p = reinterpret_cast<void*>(SpanAddr(s));
  if (want_zero && !zeroed) __builtin_memset(p, 0, size);
  return p;
}

bool ResizeLarge(Span* s, size_t size) {
  if (thread_words.busy != 0) return false;
  size_t slices = SlicesFor(size);
  if (slices > kMaxSlices) return false;
  uint32_t count = static_cast<uint32_t>(slices);
  BusyScope busy;
  bool zeroed;
  if (count > s->slices && !mheap.ExtendSpan(s, count, &zeroed)) return false;
  if (count < s->slices) mheap.ShrinkSpan(s, count);
  s->large_bytes = AlignUp(size, kOsPageSize);
  return true;
}

bool FreeLarge(Span* s) {
  // Pairs with itself: of two frees only one sees the object alive.
  if (ExchangeAcqRel(&s->large_state, kLargeFreed) != kLargeLive) return false;
  if (thread_words.busy != 0) {
    Span* head = LoadRelaxed(&deferred);
    do {
      s->ready_next = head;
    } while (!CasAcqRel(&deferred, &head, s));  // pairs: DrainDeferredLarge
    return true;
  }
  BusyScope busy;
  mheap.FreeSpan(s);
  mheap.Tick();
  return true;
}

void DrainDeferredLarge() {
  Span* s = TakeReady(&deferred);
  while (s != nullptr) {
    Span* next = s->ready_next;
    mheap.FreeSpan(s);
    s = next;
  }
}

}  // namespace undergo::heap
