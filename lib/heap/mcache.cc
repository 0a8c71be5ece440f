// SPDX-License-Identifier: Apache-2.0
// The slow half of the per-thread caches: refill, span states, remote frees.
//
// Life of a span with an mcache: it is made with all bits free and becomes the current span of its
// class. The cursor takes up to a word of free bits at a time (never more than 16 KiB of slots, so
// that what was just freed is handed out again while it is cached). When its bitmap is used up the
// span is kFull: in no list, remembered by nobody. Enough frees bring it back: local ones count
// `countdown` down, remote ones in one word make the freeing thread push the span on the owner's
// ready stack. From the partial list it becomes current again, or, with its last object freed,
// returns to the page heap.
//
// Why a threshold: a span is worth visiting when an eighth of it is free. Visiting at the first
// free would make refills of one slot the normal case in a full heap.
//
// Remote frees touch only the second line of the header and the remote words: one atomic OR per
// object, one exchange and one push per span and harvest. A span that is released while a push is
// under way would be pushed when it is no longer the pusher's business; so whoever pops looks at
// owner and state again, and forwards or drops. Headers are never unmapped, so that is safe.
//
// Countdowns are hints: each event counts the bits before it acts. That makes them robust against
// a signal handler's free between two instructions of this file, and against a late decrement by a
// thread whose span was reclaimed.
//
// Rejected: free lists through the objects (they mislead a conservative marker, and a double free
// corrupts them), magazines (objects in them look allocated to the sweeper), one lock per span.
#include "heap/mcache.h"

#include "base/assert.h"
#include "heap/arena.h"
#include "heap/bad_free.h"
#include "heap/blocked.h"
#include "heap/mcentral.h"
#include "heap/mheap.h"
#include "heap/quarantine.h"
#include "heap/registry.h"
#include "heap/sweep.h"

namespace undergo::heap {

long CallPlainly(void* fn, const long args[6]) {
  auto* call = reinterpret_cast<long (*)(long, long, long, long, long, long)>(fn);
  return call(args[0], args[1], args[2], args[3], args[4], args[5]);
}

constinit MCache empty_mcache = {};
UNDERGO_TLS ThreadWords thread_words = {
    &empty_mcache, 0, 0,       0, 0,       nullptr, nullptr, nullptr, 0, 0, 0,
    nullptr,       0, nullptr, 0, nullptr, 0,       0,       0,       {}};
constinit BusyEndHook on_busy_end = nullptr;
constinit BusyEndHook on_jump = nullptr;
constinit BlockedHook call_blocked = CallPlainly;

namespace {

constexpr int32_t kIdleCountdown = 0x7fffffff;
constexpr uint32_t kDenseSpans = 4;
constexpr uint32_t kPrefetched = 8;
constexpr uint32_t kTickInterval = 64;

// The program is about to write the slots that it gets: fetch the first lines while it works.
void Prefetch(Addr base, size_t size, uint64_t bits) {
  for (uint32_t i = 0; i < kPrefetched && bits != 0; ++i, bits &= bits - 1) {
    __builtin_prefetch(reinterpret_cast<void*>(base + LowestBit(bits) * size), 1);
  }
}

// Takes free bits of the span into the cursor, starting with the word it took last.
bool LoadCursor(MCache* mc, Cursor* c, Span* s) {
  EnsureSwept(s);
  const SizeClass& k = kClasses[s->cls];
  uint32_t w = s->word != kNoWord ? s->word : 0;
  uint32_t words = k.words;
  for (uint32_t i = 0; i < words; ++i, w = w + 1 < words ? w + 1 : 0) {
    uint64_t bits = LoadRelaxed(&s->free_bits[w]) & s->ValidBits(w);
    if (bits == 0) continue;
    uint32_t batch = UNDERGO_UNLIKELY(gc_heap.single_slots) ? 1 : k.batch;
    if (batch < 64) bits &= LowMask(batch) << LowestBit(bits);
    // One instruction: a signal handler may free into this word at any point.
    asm volatile("andq %1, %0" : "+m"(s->free_bits[w]) : "r"(~bits) : "cc");
    s->word = static_cast<uint16_t>(w);
    uint32_t first = w * 64 + LowestBit(bits);
    bool zeroed = first >= s->fresh_slot, cleared;
    if (gc_heap.enabled) {
      size_t bytes = GcTakeSlots(s, w, bits, &cleared);
      mc->gc_small += bytes;
      mc->gc_news += bytes;
      zeroed |= cleared;
    }
    c->owner = reinterpret_cast<uint64_t>(s) | (zeroed ? Cursor::kZeroed : 0);
    uint32_t end = w * 64 + HighestBit(bits) + 1;
    if (end > s->fresh_slot) s->fresh_slot = static_cast<uint16_t>(end);
    c->base = SpanAddr(s) + size_t{w} * 64 * k.size;
    c->size = k.size;
    mc->handed_out[s->cls] += CountBits(bits);
    Prefetch(c->base, k.size, bits);
    CompilerFence();  // a signal handler must not see bits without their base
    StoreRelaxed(&c->bits, bits);
    return true;
  }
  return false;
}

void MakeCurrent(Cursor* c, Span* s) {
  StoreRelaxed(&s->state, SpanState::kCurrent);
  s->countdown = kIdleCountdown;
  c->owner = reinterpret_cast<uint64_t>(s);
}

bool IsEmpty(const Span* s) {
  for (uint32_t w = 0; w < s->words(); ++w) {
    if (~s->free_bits[w] & s->ValidBits(w)) return false;
  }
  return true;
}

// Gives a span without objects away; it must be in no list. True when its slices went to the page
// heap or to the spares.
bool ReleaseLocked(MCache* mc, Span* s, bool keep_spare) {
  UNDERGO_ASSERT(IsEmpty(s));
  if (LoadAcquire(&s->pending) != 0) {  // pairs: MarkReady
    // It is linked in a ready stack: whoever takes it from there comes back here.
    StoreRelaxed(&s->state, SpanState::kFull);
    s->countdown = 0;
    return false;
  }
  EnsureSwept(s);
  GcForgetSpan(s);
  StoreRelaxed(&s->owner, static_cast<MCache*>(nullptr));
  StoreRelaxed(&s->state, SpanState::kFree);
  if (keep_spare && s->slices == 1 && mc->spare_count < kSpareSlices) {
    mc->spare[mc->spare_count++] = s;
  } else {
    mheap.FreeSpan(s);
  }
  return true;
}

// A full span has free slots again. Returns slices released.
size_t FullToPartialLocked(MCache* mc, Span* s, bool others) {
  uint32_t free = CountFree(s);
  if (free == 0) {
    // The event came late: a signal handler took what an interrupted free had set.
    s->countdown = kClasses[s->cls].revisit;
    return 0;
  }
  if (free == s->slots) {
    size_t slices = s->slices;
    return ReleaseLocked(mc, s, !others) ? slices : 0;
  }
  if (others) {
    UNDERGO_ASSERT(mc->idle);
    mcentrals[s->cls].Give(s);
    return 0;
  }
  StoreRelaxed(&s->state, SpanState::kPartial);
  s->countdown = s->slots - static_cast<int32_t>(free);
  PushBack(&mc->partial[s->cls], s);
  mc->partial[s->cls] = s;
  return 0;
}

size_t ProcessReadyLocked(MCache* mc, Span* s, bool others) {
  // A running owner's local frees may be under way in any span that still has objects.
  if (others && !mc->idle) {
    bool all_free = s->state == SpanState::kFull || s->state == SpanState::kPartial;
    for (uint32_t w = 0; all_free && w < s->words(); ++w) {
      uint64_t bits = LoadRelaxed(&s->free_bits[w]) | LoadAcquire(&s->remote_bits[w]);
      all_free = (~bits & s->ValidBits(w)) == 0;  // pairs: the frees that set the bits
    }
    if (!all_free) {
      MarkReady(s);
      return 0;
    }
  }
  switch (s->state) {
    case SpanState::kCurrent: return 0;  // harvested when the cursor runs out
    case SpanState::kFull:
      s->countdown -= static_cast<int32_t>(HarvestRemote(s));
      if (s->countdown > 0 && !(others && IsEmpty(s))) return 0;
      return FullToPartialLocked(mc, s, others);
    case SpanState::kPartial: {
      HarvestRemote(s);
      uint32_t free = CountFree(s);
      s->countdown = s->slots - static_cast<int32_t>(free);
      if (free != s->slots) return 0;
      Unlink(&mc->partial[s->cls], s);
      size_t slices = s->slices;
      return ReleaseLocked(mc, s, !others) ? slices : 0;
    }
    default: UNDERGO_CHECK(false);
  }
  return 0;
}

Span* NewSpan(MCache* mc, uint32_t cls) {
  const SizeClass& k = kClasses[cls];
  Span* s = nullptr;
  bool zeroed = false;
  if (k.slices == 1 && mc->spare_count > 0) {
    s = mc->spare[--mc->spare_count];
  } else {
    // A thread that filled several spans of the class will fill this one: huge pages pay.
    bool dense = mc->handed_out[cls] >= uint64_t{kDenseSpans} * k.slots;
    s = AllocSpanOrReclaim(k.slices, 1, dense ? SpanUse::kDense : SpanUse::kOther, &zeroed);
    if (s == nullptr) return nullptr;
    if (zeroed) mc->fresh = mheap.OnHugePages(s);
  }
  s->magic = k.slices == 1 && !QuarantineOn() ? k.magic : 0;
  s->slot_size = k.size;
  s->slots = k.slots;
  s->cls = static_cast<uint8_t>(cls);
  s->usable = UsableOf(cls);
  s->fresh_slot = zeroed ? 0 : k.slots;
  s->word = kNoWord;
  // One bit past the slots is set for ever: free() of the unused tail's start fails its bit test.
  uint32_t words = k.words + (k.slots % 64 == 0 && k.words < kMaxWords ? 1 : 0);
  for (uint32_t w = 0; w < words; ++w) {
    s->free_bits[w] = ~uint64_t{0};
    s->remote_bits[w] = 0;
  }
  GcNewSpan(s);
  StoreRelaxed(&s->owner, mc);
  StoreRelease(&s->state, SpanState::kFull);  // pairs: FindSpan
  return s;
}

// The current span has no free bit left. True when remote frees make it worth keeping.
bool LeaveCurrentLocked(Cursor* c, Span* s) {
  const SizeClass& k = kClasses[s->cls];
  uint32_t got = HarvestRemote(s);
  if (got * 2 >= k.revisit) return true;
  c->owner = 0;
  s->word = kNoWord;
  StoreRelaxed(&s->state, SpanState::kFull);
  s->countdown = static_cast<int32_t>(k.revisit) - static_cast<int32_t>(got);
  return false;
}

Span* NextSpanLocked(MCache* mc, uint32_t cls) {
  DrainReadyLocked(mc, false);
  Span* s = mc->partial[cls];
  if (s != nullptr) {
    Unlink(&mc->partial[cls], s);
    HarvestRemote(s);
    return s;
  }
  s = mcentrals[cls].Take(mc);
  if (s == nullptr && ReclaimFromIdle() && (s = mcentrals[cls].Take(mc)) != nullptr) return s;
  return s != nullptr ? s : NewSpan(mc, cls);
}

}  // namespace

void PushBack(Span** list, Span* s) {
  Span* head = *list;
  if (head == nullptr) {
    s->next = s->prev = s;
    *list = s;
    return;
  }
  s->next = head;
  s->prev = head->prev;
  head->prev->next = s;
  head->prev = s;
}

void Unlink(Span** list, Span* s) {
  UNDERGO_ASSERT(*list != nullptr);
  if (s->next == s) {
    *list = nullptr;
  } else {
    s->next->prev = s->prev;
    s->prev->next = s->next;
    if (*list == s) *list = s->next;
  }
  s->next = s->prev = nullptr;
}

uint32_t CountFree(const Span* s) {
  uint32_t n = 0;
  for (uint32_t w = 0; w < s->words(); ++w) n += CountBits(s->free_bits[w] & s->ValidBits(w));
  return n;
}

uint32_t HarvestRemote(Span* s) {
  EnsureSwept(s);
  uint32_t n = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    if (LoadRelaxed(&s->remote_bits[w]) == 0) continue;
    uint64_t bits = ExchangeAcqRel(&s->remote_bits[w], uint64_t{0});  // pairs: FreeRemote
    uint64_t twice = bits & s->free_bits[w];
    if (UNDERGO_UNLIKELY(twice != 0)) {
      // The collector may free what the program frees at the same time.
      if ((s->gc_flags & kHasReclaimed) != 0) {
        s->free_bits[w] |= bits;
        n += CountBits(bits & ~twice);
        continue;
      }
      uint32_t slot = w * 64 + LowestBit(twice);
      const void* p = reinterpret_cast<void*>(SpanAddr(s) + size_t{slot} * s->slot_size);
      ReportBadFree(BadFree::kDoubleLate, p, "free", nullptr);
      bits &= ~twice;
    }
    asm volatile("orq %1, %0" : "+m"(s->free_bits[w]) : "r"(bits) : "cc");
    n += CountBits(bits);
  }
  return n;
}

void MarkReady(Span* s) {
  if (ExchangeAcqRel(&s->pending, 1u) != 0) return;  // pairs: takers that clear it
  for (;;) {
    MCache* owner = LoadAcquire(&s->owner);  // pairs: MCentral::Take, ReleaseLocked
    Span** stack;
    if (owner != nullptr) {
      stack = &owner->ready;
    } else if (LoadRelaxed(&s->state) == SpanState::kCentral) {
      stack = &mcentrals[s->cls].ready;
    } else {
      StoreRelease(&s->pending, 0u);  // released meanwhile: nobody waits for these frees
      return;
    }
    Span* head = LoadRelaxed(stack);
    do {
      s->ready_next = head;
    } while (!CasAcqRel(stack, &head, s));  // pairs: TakeReady
    return;
  }
}

size_t DrainReadyLocked(MCache* mc, bool others) {
  size_t slices = 0;
  Span* s = TakeReady(&mc->ready);
  while (s != nullptr) {
    Span* next = s->ready_next;
    StoreRelease(&s->pending, 0u);       // pairs: MarkReady
    if (LoadAcquire(&s->owner) == mc) {  // pairs: MCentral::Take
      slices += ProcessReadyLocked(mc, s, others);
    } else {
      MarkReady(s);  // it changed hands: tell the new owner
    }
    s = next;
  }
  return slices;
}

bool RefillCursor(MCache* mc, uint32_t cls) {
  Cursor* c = &mc->cursors[cls];
  if (c->bits != 0) return true;  // a signal handler, or attaching, filled it
  if (mc->tick-- == 0) {
    mc->tick = kTickInterval;
    mheap.Tick();
  }
  Span* s = c->span();
  if (s != nullptr && LoadCursor(mc, c, s)) return true;
  mc->slow_refills++;
  for (bool reclaimed = false;;) {
    {
      sync::MutexLock hold(mc->lock);
      if (s != nullptr && LeaveCurrentLocked(c, s) && LoadCursor(mc, c, s)) return true;
      s = NextSpanLocked(mc, cls);
      if (s != nullptr) {
        MakeCurrent(c, s);
        if (LoadCursor(mc, c, s)) return true;
        continue;  // a hint was wrong: the next one
      }
    }
    if (reclaimed) return false;
    ReclaimAll();
    reclaimed = true;
  }
}

void OnCountdown(MCache* mc, Span* s) {
  sync::MutexLock hold(mc->lock);
  if (s->owner != mc) return;  // reclaimed by another thread, with this very free
  switch (s->state) {
    case SpanState::kCurrent: s->countdown = kIdleCountdown; break;
    case SpanState::kFull: FullToPartialLocked(mc, s, false); break;
    case SpanState::kPartial: ProcessReadyLocked(mc, s, false); break;
    default: break;
  }
}

void FlushLocked(MCache* mc) {
  DrainReadyLocked(mc, false);
  for (uint32_t cls = 0; cls < kNumClasses; ++cls) {
    Cursor* c = &mc->cursors[cls];
    Span* s = c->span();
    if (s != nullptr) {
      uint64_t bits = ExchangeAcqRel(&c->bits, uint64_t{0});  // a handler sees all or nothing
      if (bits != 0) {
        mc->handed_out[cls] -= CountBits(bits);
        uint32_t w = static_cast<uint32_t>((c->base - SpanAddr(s)) / c->size / 64);
        asm volatile("orq %1, %0" : "+m"(s->free_bits[w]) : "r"(bits) : "cc");
      }
      c->owner = 0;
      s->word = kNoWord;
      HarvestRemote(s);
      StoreRelaxed(&s->state, SpanState::kFull);
      s->countdown = kClasses[cls].revisit;
      if (CountFree(s) != 0) mcentrals[cls].Give(s);
    }
    while ((s = mc->partial[cls]) != nullptr) {
      Unlink(&mc->partial[cls], s);
      mcentrals[cls].Give(s);
    }
  }
  while (mc->spare_count > 0) mheap.FreeSpan(mc->spare[--mc->spare_count]);
}

uint64_t CursorBits(const Span* s, uint32_t word) {
  MCache* mc = LoadAcquire(&s->owner);  // pairs: MCentral::Take
  if (mc == nullptr) return 0;
  const Cursor& c = mc->cursors[s->cls];
  if (c.span() != s) return 0;
  Addr base = SpanAddr(s) + size_t{word} * 64 * s->slot_size;
  return c.base == base ? LoadRelaxed(&c.bits) : 0;
}

}  // namespace undergo::heap
