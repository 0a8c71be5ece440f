// SPDX-License-Identifier: Apache-2.0
// Slow halves of malloc and calloc, aligned allocation, realloc, usable size, trim.
#include "heap/malloc.h"

#include <errno.h>

#include "base/assert.h"
#include "heap/bad_free.h"
#include "heap/blocked.h"
#include "heap/fastpath.h"
#include "heap/large.h"
#include "heap/late_heap.h"
#include "heap/mheap.h"
#include "heap/pin.h"
#include "heap/quarantine.h"
#include "heap/registry.h"
#include "heap/site.h"
#include "heap/sweep.h"
#include "heap/walk.h"

namespace undergo::heap {

namespace {

UNDERGO_COLD void* NoMemory() {
  errno = ENOMEM;
  return nullptr;
}

// Around calls of the collector. The world may stop in them, but no handler may leave them for
// good.
class HookScope {
 public:
  HookScope() {
    thread_words.in_hook++;
    CompilerFence();
  }
  ~HookScope() {
    CompilerFence();
    thread_words.in_hook--;
    if (UNDERGO_UNLIKELY(thread_words.jump_below != 0)) TellBusyEnd();
  }
  HookScope(const HookScope&) = delete;
  HookScope& operator=(const HookScope&) = delete;
};

// Lets the collector know how the heap grows: it may start a cycle, or ask for help. The caller
// holds the new object on its stack, so that it is found.
UNDERGO_COLD void TellCollector() {
  HookScope hook;
  MCache* mc = thread_words.mcache;
  size_t bytes = mc->gc_news;
  FetchAddRelaxed(&gc_heap.live_bytes, uint64_t{mc->gc_small});
  mc->gc_small = mc->gc_news = 0;
  if (on_allocation != nullptr) on_allocation(bytes, &mc->gc_credit);
}
void MayTellCollector() {
  MCache* mc = thread_words.mcache;
  if (UNDERGO_UNLIKELY(mc->gc_news >= gc_heap.notice_bytes) && thread_words.busy == 0)
    TellCollector();
}

long WriteZero(volatile char* at) {
  *at = 0;
  return 0;
}

// A new object from the slow path, before the program gets it.
void Finish(void* p) {
  if (UNDERGO_UNLIKELY(sites_on)) RecordSite(p);
  MCache* mc = thread_words.mcache;
  if (UNDERGO_UNLIKELY(mc->fresh) && thread_words.busy == 0) {
    mc->fresh = false;
    CallBlocked(WriteZero, static_cast<char*>(p));
  }
  MayTellCollector();
}

void* WantLarge(size_t size, uint32_t align_slices, bool want_zero) {
  if (before_large != nullptr && thread_words.busy == 0) {
    HookScope hook;
    before_large(size);
  }
  return MallocLarge(size, align_slices, want_zero);
}

// A slot of a small class by the slow path; *zeroed: its memory reads as zero.
void* SmallSlow(uint32_t cls, bool* zeroed) {
  if (thread_words.busy != 0) return LateMalloc(cls, true, zeroed);
  BusyScope busy;
  MCache* mc = thread_words.mcache;
  if (mc == &empty_mcache) {
    mc = thread_words.exited ? nullptr : AttachThread();
    if (mc == nullptr) return LateMalloc(cls, false, zeroed);
  }
  TakenSlot t;
  do {
    if (!RefillCursor(mc, cls)) return nullptr;
    t = TakeLowestBit<true>(&mc->cursors[cls]);
  } while (UNDERGO_UNLIKELY(t.bits == 0));  // a signal handler took all of it by the fast path
  *zeroed = (t.owner & Cursor::kZeroed) != 0;
  return t.address;
}

void* AllocSlow(size_t size, bool want_zero) {
  bool zeroed = false;
  uint32_t cls = size <= kMaxSmallSize ? ClassOf(size) : kLargeClass;
  void* p;
  if (cls == kLargeClass) {
    p = size > kMaxRequest ? nullptr : WantLarge(size, 1, want_zero);
    zeroed = true;
  } else {
    p = SmallSlow(cls, &zeroed);
  }
  if (p == nullptr) return NoMemory();
  Finish(p);
  return want_zero && !zeroed ? __builtin_memset(p, 0, size) : p;
}

// A slot of exactly this class.
void* MallocClass(uint32_t cls) {
  TakenSlot t = TakeLowestBit<false>(&thread_words.mcache->cursors[cls]);
  if (t.bits != 0) return t.address;
  bool zeroed;
  void* p = SmallSlow(cls, &zeroed);
  if (p == nullptr) return NoMemory();
  Finish(p);
  return p;
}

}  // namespace

void* MallocSlow(size_t size) { return AllocSlow(size, false); }
void* MallocZeroedSlow(size_t size) { return AllocSlow(size, true); }

void* MallocAligned(size_t align, size_t size) {
  UNDERGO_ASSERT(IsPowerOfTwo(align));
  if (size > kMaxRequest || align > kMaxRequest) return NoMemory();
  if (align <= kGranule) return Malloc(size);
  // Spans begin at multiples of the slice size, so slots of a class are aligned to every power of
  // two up to that which divides the slot size. Powers of two are classes: the search is short.
  if (size <= kMaxSmallSize && align <= kMaxSmallSize) {
    size_t need = Max(size, align);
    for (uint32_t cls = ClassOf(need - Slack()); cls < kNumClasses; ++cls) {
      if ((kClasses[cls].size & (align - 1)) == 0 && UsableOf(cls) >= size) return MallocClass(cls);
    }
  }
  size_t slices = AlignUp(align, kSliceSize) / kSliceSize;
  if (slices > kMaxSlices) return NoMemory();
  void* p = WantLarge(Max(size, kMaxSmallSize + 1), static_cast<uint32_t>(slices), false);
  if (UNDERGO_UNLIKELY(sites_on) && p != nullptr) RecordSite(p);
  return p != nullptr ? p : NoMemory();
}

size_t GoodSize(size_t size) {
  uint32_t cls = size <= kMaxSmallSize ? ClassOf(size) : kLargeClass;
  return cls != kLargeClass ? UsableOf(cls) : AlignUp(size, kOsPageSize);
}

size_t UsableSize(void* p, void* caller, const char* function) {
  Object o;
  if (FindObject(reinterpret_cast<Addr>(p), &o)) {
    if (o.base == reinterpret_cast<Addr>(p) && o.allocated) {
      return o.span->state == SpanState::kLarge ? o.size : o.span->usable;
    }
    ReportBadFree(o.allocated ? BadFree::kInterior : BadFree::kFreed, p, function, caller);
    return 0;
  }
  size_t size;
  if (!InArena(p) && heap_client.foreign_size != nullptr && heap_client.foreign_size(p, &size)) {
    return size;
  }
  ReportBadFree(BadFree::kWild, p, function, caller);
  return 0;
}

namespace {

// Usable size of an object of this heap that starts at p; 0 when p is anything else.
UNDERGO_NOINLINE size_t SizeOfObject(void* p, Span** span) {
  Span* s = *span = FindSpan(reinterpret_cast<Addr>(p));
  if (s == nullptr) return 0;
  Addr start = reinterpret_cast<Addr>(p) - SpanAddr(s);
  if (s->state == SpanState::kLarge) {
    bool live = LoadRelaxed(&s->large_state) == kLargeLive && !IsQuarantined(s, 0);
    return start == 0 && live ? s->large_bytes : 0;
  }
  uint32_t offset = static_cast<uint32_t>(start);
  uint32_t slot = offset / s->slot_size;
  if (offset != slot * s->slot_size || slot >= s->slots) return 0;
  if (UNDERGO_UNLIKELY(QuarantineOn()) && IsQuarantined(s, slot)) return 0;
  uint64_t free = LoadRelaxed(&s->free_bits[slot / 64]) | LoadRelaxed(&s->remote_bits[slot / 64]);
  return ((free >> (slot % 64)) & 1) == 0 ? s->usable : 0;
}

}  // namespace

void* Realloc(void* p, size_t size, void* caller) {
  if (size > kMaxRequest) return NoMemory();
  Span* s = nullptr;
  size_t usable = UsableSizeFast(p);
  if (usable == 0) usable = SizeOfObject(p, &s);
  if (UNDERGO_UNLIKELY(usable == 0)) {
    usable = UsableSize(p, caller, "realloc");
    if (usable == 0) return NoMemory();
  }
  // In place when it fits and at least half of the slot stays in use.
  if (size <= usable && size >= usable / 2) return p;
  if (s != nullptr && s->state == SpanState::kLarge && size > kMaxSmallSize &&
      ResizeLarge(s, size)) {
    return p;
  }
  void* q = Malloc(size);
  if (q == nullptr) return size <= usable ? p : nullptr;  // shrinking never fails
  if (UNDERGO_UNLIKELY(LoadRelaxed(&pinned_spans) != nullptr) && IsPinned(p)) Pin(q);
  __builtin_memcpy(q, p, Min(size, usable));
  FreeSlow(p, caller);
  return q;
}

bool Trim() {
  if (thread_words.busy != 0) return false;
  BusyScope busy;
  ReclaimAll();
  DrainDeferredLarge();
  return mheap.PurgeAll() != 0;
}

}  // namespace undergo::heap
