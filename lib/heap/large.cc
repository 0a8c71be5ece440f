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
#include "heap/quarantine.h"
#include "heap/registry.h"
#include "heap/sweep.h"

namespace undergo::heap {

namespace {

// Freed by a handler that interrupted the heap; linked by ready_next.
constinit Span* deferred = nullptr;

// With room for a pointer to the end of the object, which must not be the next one's address.
size_t SlicesFor(size_t size) { return (size + Slack() + kSliceSize - 1) >> kSliceShift; }

Span* AllocLargeSpan(uint32_t count, uint32_t align_slices, bool reentrant, bool* zeroed) {
  if (reentrant) return align_slices == 1 ? mheap.AllocSpanReentrant(count, zeroed) : nullptr;
  DrainDeferredLarge();
  mheap.Tick();
  Span* s = AllocSpanOrReclaim(count, align_slices, SpanUse::kOther, zeroed);
  if (s != nullptr) return s;
  ReclaimAll();
  return mheap.AllocSpan(count, align_slices, SpanUse::kOther, Growth::kYes, zeroed);
}

}  // namespace

void* MallocLarge(size_t size, uint32_t align_slices, bool want_zero) {
  // A page-aligned object has no slack: its users divide it into pages.
  size_t slices = align_slices > 1 ? (size + kSliceSize - 1) >> kSliceShift : SlicesFor(size);
  if (slices > kMaxSlices) return nullptr;
  bool zeroed = false;
  void* p;
  {
    bool reentrant = thread_words.busy != 0;
    BusyScope busy;
    Span* s = AllocLargeSpan(static_cast<uint32_t>(slices), align_slices, reentrant, &zeroed);
    if (s == nullptr) return nullptr;
    s->magic = 0;
    s->slot_size = 0;
    s->slots = 1;
    s->cls = kLargeClass;
    s->large_bytes = AlignUp(size, kOsPageSize);
    StoreRelaxed(&s->pending, 0u);
    s->free_bits[0] = s->remote_bits[0] = 0;
    StoreRelaxed(&s->large_state, kLargeLive);
    GcLargeChanged(s, 0, s->large_bytes);
    StoreRelease(&s->state, SpanState::kLarge);  // pairs: FindSpan
    CountLarge(s->large_bytes);
    if (!reentrant) thread_words.mcache->gc_news += s->large_bytes;
    // The world may stop at the end of the scope: the address must exist then.
    p = reinterpret_cast<void*>(SpanAddr(s));
    asm volatile("" : "+r"(p));
  }
  if (want_zero && !zeroed) __builtin_memset(p, 0, size);
  return p;
}

bool ResizeLarge(Span* s, size_t size) {
  if (thread_words.busy != 0) return false;
  size_t slices = SlicesFor(size);
  if (slices > kMaxSlices) return false;
  uint32_t count = static_cast<uint32_t>(slices);
  // The end of an object that shrinks would be used again at once.
  if (count < s->slices && QuarantineOn()) return false;
  BusyScope busy;
  if (gc_heap.enabled) GcLargeUsed(s, "was resized by the program");
  bool zeroed;
  if (count > s->slices && !mheap.ExtendSpan(s, count, &zeroed)) return false;
  if (count < s->slices) mheap.ShrinkSpan(s, count);
  size_t before = s->large_bytes;
  s->large_bytes = AlignUp(size, kOsPageSize);
  GcLargeChanged(s, before, s->large_bytes);
  return true;
}

bool FreeLarge(Span* s) {
  // Pairs with itself: of two frees only one sees the object alive.
  if (ExchangeAcqRel(&s->large_state, kLargeFreed) != kLargeLive) return false;
  GcLargeChanged(s, s->large_bytes, 0);
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
