// SPDX-License-Identifier: Apache-2.0
// The whole story of a small malloc and a small free.
//
// malloc: size to class, the class's cursor, lowest free bit, address. The only thing written is
// the cursor word; the object's memory is not touched.
// free: address to span header by arithmetic, owner test, slot index by multiplication, set the
// free bit, count down. The low half of the product is below the magic number exactly when the
// address is the start of a slot, so interior pointers cost one comparison; a set bit is a
// double free. Everything unusual goes to FreeSlow, which tells the cases apart.
//
// Signal handlers: a free is two single-instruction updates, each whole. Taking a slot is a load
// and a store; a handler that allocates in between would be given the same slot. Those four
// instructions are therefore listed in the section undergo_restart, and the handler wrapper
// (posix/signal.cc) moves a thread that it finds between them back to the first one.
#pragma once

#include "base/assert.h"
#include "heap/arena.h"
#include "heap/mcache.h"

namespace undergo::heap {

// The cold halves. They set errno to ENOMEM when they return null.
UNDERGO_NOINLINE void* MallocSlow(size_t size);
UNDERGO_NOINLINE void* MallocZeroedSlow(size_t size);
// `caller` is for reports: the address that called into the library.
UNDERGO_NOINLINE void FreeSlow(void* p, void* caller);
// For tail calls out of an exported function: its own return address is the caller.
UNDERGO_NOINLINE void FreeSlowTail(void* p);
UNDERGO_NOINLINE void CountdownSlow(Span* s);

struct TakenSlot {
  uint64_t bits;   // the cursor word as it was; 0: the cursor was empty
  void* address;   // of the slot, unless the cursor was empty
  uint64_t owner;  // as in the cursor; only if asked for
};

// Takes the lowest bit out of the cursor. All that belongs to the word is read before the store
// that takes the slot: a signal handler may refill the cursor right after it. The address is known
// before the store, too: the collector may stop the thread anywhere, and finds in its registers
// each slot that is taken.
template <bool kWithOwner>
UNDERGO_INLINE TakenSlot TakeLowestBit(Cursor* c) {
  TakenSlot t;
  uint64_t rest, at;
#define UNDERGO_TAKE(more)                           \
  "661:\n\t"                                         \
  "movq %c[bits](%[c]), %[taken]\n\t"                \
  "rep bsfq %[taken], %[at]\n\t"                     \
  "imulq %c[size](%[c]), %[at]\n\t"                  \
  "addq %c[base](%[c]), %[at]\n\t" more              \
  "leaq -1(%[taken]), %[rest]\n\t"                   \
  "andq %[taken], %[rest]\n\t"                       \
  "movq %[rest], %c[bits](%[c])\n"                   \
  "662:\n\t"                                         \
  ".pushsection undergo_restart,\"a\",@progbits\n\t" \
  ".long 661b - ., 662b - .\n\t"                     \
  ".popsection"
#define UNDERGO_TAKE_INPUTS                                                           \
  [c] "r"(c), [bits] "i"(offsetof(Cursor, bits)), [base] "i"(offsetof(Cursor, base)), \
      [size] "i"(offsetof(Cursor, size)), [owner] "i"(offsetof(Cursor, owner))
  if constexpr (kWithOwner) {
    asm volatile(UNDERGO_TAKE("movq %c[owner](%[c]), %[span]\n\t")
                 : [taken] "=&r"(t.bits), [at] "=&r"(at), [rest] "=&r"(rest), [span] "=&r"(t.owner)
                 : UNDERGO_TAKE_INPUTS
                 : "cc", "memory");
  } else {
    asm volatile(UNDERGO_TAKE("")
                 : [taken] "=&r"(t.bits), [at] "=&r"(at), [rest] "=&r"(rest)
                 : UNDERGO_TAKE_INPUTS
                 : "cc", "memory");
    t.owner = 0;
  }
#undef UNDERGO_TAKE
#undef UNDERGO_TAKE_INPUTS
  t.address = reinterpret_cast<void*>(at);
  return t;
}

// `kSlow` is what to do when the cursor is empty or the size is not small.
template <void* (*kSlow)(size_t) = MallocSlow>
UNDERGO_INLINE void* Malloc(size_t size) {
  if (UNDERGO_UNLIKELY(size > kMaxSmallSize)) return kSlow(size);
  TakenSlot t = TakeLowestBit<false>(&thread_words.mcache->cursors[ClassOf(size)]);
  if (UNDERGO_UNLIKELY(t.bits == 0)) return kSlow(size);
  return t.address;
}

// For calloc: a cursor whose slots were never used spares the clearing.
UNDERGO_INLINE void* MallocZeroed(size_t size) {
  if (UNDERGO_UNLIKELY(size > kMaxSmallSize)) return MallocZeroedSlow(size);
  TakenSlot t = TakeLowestBit<true>(&thread_words.mcache->cursors[ClassOf(size)]);
  if (UNDERGO_UNLIKELY(t.bits == 0)) return MallocZeroedSlow(size);
  void* p = t.address;
  return (t.owner & Cursor::kZeroed) != 0 ? p : __builtin_memset(p, 0, size);
}

// Usable bytes of an object of this heap in a span of one slice; 0 when p needs a closer look.
UNDERGO_INLINE size_t UsableSizeFast(void* p) {
  Addr offset = reinterpret_cast<Addr>(p) - arena.base;
  if (UNDERGO_UNLIKELY(offset >= arena.size)) return 0;
  auto* s = reinterpret_cast<Span*>(arena.spans + (offset >> kSliceShift) * kSpanStride);
  uint64_t product = (offset & (kSliceSize - 1)) * s->magic;
  if (UNDERGO_UNLIKELY(s->state == SpanState::kFree ||
                       static_cast<uint32_t>(product) >= s->magic)) {
    return 0;
  }
  uint64_t slot = product >> 32;
  bool free = (s->free_bits[slot / 64] & (uint64_t{1} << (slot % 64))) != 0;
  return UNDERGO_UNLIKELY(free) ? 0 : s->usable;
}

UNDERGO_INLINE void Free(void* p) {
  Addr offset = reinterpret_cast<Addr>(p) - arena.base;
  if (UNDERGO_UNLIKELY(offset >= arena.size)) return FreeSlowTail(p);
  auto* s = reinterpret_cast<Span*>(arena.spans + (offset >> kSliceShift) * kSpanStride);
  MCache* mc = thread_words.mcache;
  if (UNDERGO_UNLIKELY(s->owner != mc)) return FreeSlowTail(p);
  uint64_t product = (offset & (kSliceSize - 1)) * s->magic;
  if (UNDERGO_UNLIKELY(static_cast<uint32_t>(product) >= s->magic)) return FreeSlowTail(p);
  uint64_t slot = product >> 32;
  uint64_t word = slot / 64;
  uint64_t bit = uint64_t{1} << (slot % 64);
  if (UNDERGO_UNLIKELY((s->free_bits[word] & bit) != 0)) return FreeSlowTail(p);
  if constexpr (kDebug) {
    // The cursor holds free slots of its word that the bitmap no longer shows. Looking there costs
    // a release build a tenth of its speed where threads hand objects on.
    if (word == s->word && (mc->cursors[s->cls].bits & bit) != 0) return FreeSlowTail(p);
  }
  bool event;
  asm volatile(
      "orq %[bit], %c[bits](%[s],%[word],8)\n\t"
      "subl $1, %c[countdown](%[s])"
      : "=@ccz"(event)
      : [bit] "r"(bit), [s] "r"(s), [word] "r"(word), [bits] "i"(offsetof(Span, free_bits)),
        [countdown] "i"(offsetof(Span, countdown))
      : "memory");
  if (UNDERGO_UNLIKELY(event)) CountdownSlow(s);
}

}  // namespace undergo::heap
