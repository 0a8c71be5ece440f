// SPDX-License-Identifier: Apache-2.0
// The whole story of a small malloc and a small free.
//
// malloc: size to class, the class's cursor, lowest free bit, address. The only thing written is
// the cursor word; the object's memory is not touched.
// free: address to span header by arithmetic, owner test, slot index by multiplication, set the
// free bit, count down. The low half of the product is below the magic number exactly when the
// address is the start of a slot, so interior pointers cost one comparison; a set bit is a double
// free. Everything unusual goes to FreeSlow, which tells the cases apart.
//
// Signal handlers: a free is two single-instruction updates, each whole. Taking a slot is a load
// and a store; a handler that allocates in between would be given the same slot. Those four
// instructions are therefore listed in the section undergo_restart, and the handler wrapper
// (posix/signal.cc) moves a thread that it finds between them back to the first one.
#pragma once

#include "heap/arena.h"
#include "heap/mcache.h"

namespace undergo::heap {

// The cold halves. They set errno to ENOMEM when they return null.
UNDERGO_NOINLINE void* MallocSlow(size_t size);
UNDERGO_NOINLINE void* MallocZeroedSlow(size_t size);
UNDERGO_NOINLINE void FreeSlow(void* p, void* caller);
UNDERGO_NOINLINE void CountdownSlow(Span* s);

struct TakenSlot {
  uint64_t bits;    // the cursor word as it was; 0: the cursor was empty
  Addr base;        // address of its slot 0
  uint64_t shape;   // slot size, and `zeroed` in the upper half
};

// Takes the lowest bit out of the cursor. All that belongs to the word is read before the store
// that takes the slot: a signal handler may refill the cursor right after it.
UNDERGO_INLINE TakenSlot TakeLowestBit(Cursor* c) {
  TakenSlot t;
  uint64_t rest;
  asm volatile(
      "661:\n\t"
      "movq %c[bits](%[c]), %[taken]\n\t"
      "movq %c[base](%[c]), %[at]\n\t"
      "movq %c[shape](%[c]), %[form]\n\t"
      "leaq -1(%[taken]), %[rest]\n\t"
      "andq %[taken], %[rest]\n\t"
      "movq %[rest], %c[bits](%[c])\n"
      "662:\n\t"
      ".pushsection undergo_restart,\"a\",@progbits\n\t"
      ".long 661b - ., 662b - .\n\t"
      ".popsection"
      : [taken] "=&r"(t.bits), [at] "=&r"(t.base), [form] "=&r"(t.shape), [rest] "=&r"(rest)
      : [c] "r"(c), [bits] "i"(offsetof(Cursor, bits)), [base] "i"(offsetof(Cursor, base)),
        [shape] "i"(offsetof(Cursor, size))
      : "cc", "memory");
  return t;
}

UNDERGO_INLINE void* SlotAddress(const TakenSlot& t) {
  return reinterpret_cast<void*>(t.base +
                                 size_t{LowestBit(t.bits)} * static_cast<uint32_t>(t.shape));
}

UNDERGO_INLINE void* Malloc(size_t size) {
  if (UNDERGO_UNLIKELY(size > kMaxSmallSize)) return MallocSlow(size);
  TakenSlot t = TakeLowestBit(&thread_words.mcache->cursors[ClassOf(size)]);
  if (UNDERGO_UNLIKELY(t.bits == 0)) return MallocSlow(size);
  return SlotAddress(t);
}

// For calloc: a cursor whose slots were never used spares the clearing.
UNDERGO_INLINE void* MallocZeroed(size_t size) {
  if (UNDERGO_UNLIKELY(size > kMaxSmallSize)) return MallocZeroedSlow(size);
  TakenSlot t = TakeLowestBit(&thread_words.mcache->cursors[ClassOf(size)]);
  if (UNDERGO_UNLIKELY(t.bits == 0)) return MallocZeroedSlow(size);
  void* p = SlotAddress(t);
  return (t.shape >> 32) != 0 ? p : __builtin_memset(p, 0, size);
}

UNDERGO_INLINE void Free(void* p) {
  void* caller = __builtin_return_address(0);
  Addr offset = reinterpret_cast<Addr>(p) - arena.base;
  if (UNDERGO_UNLIKELY(offset >= arena.size)) return FreeSlow(p, caller);
  Span* s = SpanAtSlice(static_cast<uint32_t>(offset >> kSliceShift));
  if (UNDERGO_UNLIKELY(s->owner != thread_words.mcache)) return FreeSlow(p, caller);
  uint64_t product = (offset & (kSliceSize - 1)) * s->magic;
  if (UNDERGO_UNLIKELY(static_cast<uint32_t>(product) >= s->magic)) return FreeSlow(p, caller);
  uint32_t slot = static_cast<uint32_t>(product >> 32);
  uint64_t* word = &s->free_bits[slot / 64];
  uint64_t bit = uint64_t{1} << (slot % 64);
  if (UNDERGO_UNLIKELY((*word & bit) != 0)) return FreeSlow(p, caller);
  bool event;
  asm volatile("orq %1, %0" : "+m"(*word) : "r"(bit) : "cc");
  asm volatile("subl $1, %0" : "+m"(s->countdown), "=@ccz"(event) : : );
  if (UNDERGO_UNLIKELY(event)) CountdownSlow(s);
}

}  // namespace undergo::heap
