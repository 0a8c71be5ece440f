// SPDX-License-Identifier: Apache-2.0
// Span: the metadata of a run of slices that holds slots of one size class, or one large object.
//
// Span headers lie in a table indexed by slice number, so the header of an address is arithmetic.
// The free bitmap is the free structure: a set bit in `free_bits` is a free slot. Nothing about
// free slots is ever written into the heap itself. Bits past the last slot are set and mean
// nothing. Frees by others than the owner set bits in `remote_bits`, atomically; the owner harvests
// them.
//
// Who may touch what:
//  - line 0 and free_bits: the owner (the thread that holds the mcache `owner`); for a span in
//    mcentral the holder of its lock; for a large object the thread that allocates or frees it.
//  - line 1 and remote_bits: anybody, atomically.
//
// States and where a span is then:
//   kFree     nowhere: its slices are free or not yet used       owner null
//   kCurrent  the cursor of its class in the owner's mcache      countdown idle
//   kFull     no list; found again when `countdown` frees came   countdown = frees to kPartial
//   kPartial  the owner's partial list of its class              countdown = frees to empty
//   kCentral  mcentral's list of its class                       owner null
//   kLate     the late heap, for ever; free slots in remote_bits owner null
//   kLarge    one object                                         owner null
#pragma once

#include "base/atomic.h"
#include "base/bits.h"
#include "heap/size_class.h"

namespace undergo::heap {

struct MCache;

enum class SpanState : uint8_t { kFree, kCurrent, kFull, kPartial, kCentral, kLate, kLarge };

struct alignas(64) Span {
  // Line 0: in the order in which free() reads it.
  MCache* owner;        // non-null only for small spans that an mcache owns [inv.span.one-owner]
  uint32_t magic;       // ceil(2^32 / slot_size) in one-slice spans, else 0: fails the fast path
  int32_t countdown;    // local frees until the span changes its state
  uint32_t slot_size;   // bytes; for a large object 0
  uint16_t slots;       // 1 for a large object
  uint8_t cls;          // size class, or kLargeClass
  SpanState state;      // written by the owner; read racily by diagnostics
  uint16_t fresh_slot;  // slots from here on were never handed out since their memory was zero
  uint16_t word;        // word of free_bits the cursor took last; kNoWord unless kCurrent
  uint32_t slices;      // length of the run
  Span* next;           // partial list of the owner, or mcentral's
  Span* prev;
  size_t large_bytes;  // usable bytes of a large object
  uint32_t usable;     // bytes of a slot that the program may use

  // Line 1: shared.
  alignas(64) uint32_t pending;  // 1: linked, or about to be, in a ready stack; pairs: MarkReady
  uint32_t sweepgen;             // sweep generation: the heap's when swept, older when not
  Span* ready_next;              // link in a ready stack; written by who set `pending`
  uint32_t large_state;          // kLargeLive or kLargeFreed; exchanged by free to find doubles
  // Collector (heap/sweep.h); written by who sweeps the span, read by its owner.
  uint32_t gc_flags;        // which of the planes have bits
  uint32_t probation_ms;    // clock at the last condemnation
  uint32_t has_pins;        // atomic; 1: linked by pin_next for ever (heap/pin.h)
  uint64_t probation_hash;  // of the contents of the condemned objects
  Span* pin_next;           // written by who sets has_pins

  alignas(64) uint64_t free_bits[kMaxWords];
  uint64_t remote_bits[kMaxWords];

  uint32_t words() const { return (slots + 63u) / 64u; }
  // Bits of word `w` that belong to slots.
  uint64_t ValidBits(uint32_t w) const {
    uint32_t left = slots - w * 64;
    return LowMask(left < 64 ? left : 64);
  }
};

inline constexpr uint16_t kNoWord = 0xffff;

inline constexpr uint32_t kLargeLive = 1;
inline constexpr uint32_t kLargeFreed = 2;

inline constexpr size_t kSpanStride = sizeof(Span);
static_assert(kSpanStride == 128 + 2 * kMaxWords * 8);

}  // namespace undergo::heap
