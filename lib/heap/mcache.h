// SPDX-License-Identifier: Apache-2.0
// MCache: what one running thread of control allocates from without locks.
//
// Each size class has a cursor: a word of up to 64 free slots taken out of the bitmap of the
// current span. An mcache belongs to at most one thread at a time; a thread that ends gives it
// back whole, and the next new thread continues with it, warm. Its address is the owner id of
// spans, so ownership survives that change.
#pragma once

#include "base/compiler.h"
#include "heap/span.h"
#include "heap/thread_words.h"
#include "sync/mutex.h"

namespace undergo::heap {

struct Cursor {
  uint64_t bits;   // free slots of the word, bit 0 is the slot at `base`
  Addr base;       // address of the word's slot 0
  uint64_t size;   // slot size in bytes
  uint64_t owner;  // the current span of the class, null at first; kZeroed may be set in it

  Span* span() const { return reinterpret_cast<Span*>(owner & ~kZeroed); }

  static constexpr uint64_t kZeroed = 1;  // all slots in `bits` still read as zero
};
static_assert(sizeof(Cursor) == 32);

inline constexpr uint32_t kSpareSlices = 4;

struct alignas(64) MCache {
  Cursor cursors[kNumClasses + 1];  // the last one is always empty: kLargeClass
  Span* partial[kNumClasses];  // circular lists of kPartial spans, newest first: their slots are
                               // cached
  uint64_t handed_out[kNumClasses];  // slots loaded into cursors so far, less those flushed back

  // Spans that got remote frees: a stack anybody pushes to and the lock holder empties at once.
  alignas(64) Span* ready;  // pairs: MarkReady / DrainReady
  // Held while states and lists of this mcache's spans change. The owner takes it once per span,
  // never per object; others take it to reclaim spans without any object.
  sync::Mutex lock;
  bool idle;                  // lock; no thread holds this mcache
  uint32_t spare_count;       // lock
  Span* spare[kSpareSlices];  // lock; empty one-slice spans for the next class that needs one
  size_t gc_small;            // owner; bytes in small slots that gc_heap.live_bytes lacks
  int64_t gc_credit;          // owner; bytes of allocation that assists have paid in advance
  size_t gc_news;             // owner; bytes that the collector has not been told of
  bool fresh;                 // owner; a new span lies on huge pages that perhaps nobody touched
  uint32_t tick;              // owner; refills until the next Tick of the page heap
  uint64_t slow_refills;      // owner; refills that needed another span
  MCache* all_next;           // every mcache ever made; set once, before it is published
  MCache* idle_next;          // registry lock
};

// A cache without any slot, for threads that have none yet or no more: every request goes to the
// slow path and no span belongs to it. That spares the fast path a test.
extern constinit MCache empty_mcache;

// Fills the cursor of the class; false when there is no memory. BusyScope held.
bool RefillCursor(MCache* mc, uint32_t cls);

// The countdown of a span of this mcache reached zero. BusyScope held.
void OnCountdown(MCache* mc, Span* s);

// Tells the owner of a span that it got remote frees, once until the owner looks. Any context.
void MarkReady(Span* s);

// Takes a whole ready stack; the spans are linked by ready_next. Any context.
inline Span* TakeReady(Span** stack) {
  if (LoadRelaxed(stack) == nullptr) return nullptr;
  return ExchangeAcqRel(stack, static_cast<Span*>(nullptr));  // pairs: MarkReady
}

// Moves remote frees of a span into its free bits; number of slots. For who owns the free bits.
uint32_t HarvestRemote(Span* s);
// Free slots of a span, cursors not counted.
uint32_t CountFree(const Span* s);

// Looks at the spans that others freed into. Spans that became partly free join the partial list;
// for an idle mcache they go to mcentral. mc->lock held; returns slices released to the page heap.
// `others`: the caller is not the owner: only spans without any object may be touched unless idle.
size_t DrainReadyLocked(MCache* mc, bool others);

// Puts unused cursor slots back and lets go of the current spans, spares and partial spans.
// mc->lock held, by the owner.
void FlushLocked(MCache* mc);

// A slot-by-slot view needs to know which slots are in cursors: the bits of `word` of `s` that the
// cursor of its owner holds. Exact when the owner is stopped or is the caller.
uint64_t CursorBits(const Span* s, uint32_t word);

// Link functions of circular lists, used for partial spans.
void PushBack(Span** list, Span* s);
void Unlink(Span** list, Span* s);

}  // namespace undergo::heap
