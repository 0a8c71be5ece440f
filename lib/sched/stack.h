// SPDX-License-Identifier: Apache-2.0
// Slots for Gs: stack, thread block and G in one piece of address space.
//
//   slot                                                                        slot + size
//   | guard | stack ...                 <- stack_high | static TLS | struct pthread | G |
//
// Slots have sizes of powers of two and lie in one range of addresses at multiples of their size,
// so that a thread's id (the address of its struct pthread) leads to its G by arithmetic, and
// garbage in place of an id is recognised without a fault. Pages appear when they are touched; a
// slot that was used is kept for the next thread. The range is a root of the collector like any
// memory of the program.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

inline constexpr uint32_t kMinSlotShift = 14;
inline constexpr uint32_t kMaxSlotShift = 37;

// The slot size for so many bytes: stack, guard, thread block, G; 0: too large.
uint32_t SlotShiftFor(size_t size);
inline constexpr size_t kGSize = AlignUp(sizeof(G), 64);

// A slot of that size: recycled (its G has fs != 0), or new (its G is zero but for what this file
// knows). Null when there is no memory. Any thread.
G* TakeSlot(uint32_t shift);
// The G's thread has ended and nobody will ask for it.
void GiveSlot(G* g);

// The slot's first byte.
inline Addr SlotBase(const G* g) {
  return reinterpret_cast<Addr>(g) >> g->slot_shift << g->slot_shift;
}

inline Addr SlotEnd(const G* g) { return SlotBase(g) + (Addr{1} << g->slot_shift); }

// Makes `size` bytes from `low` on, in the slot, fault, and those of before usable. False when the
// kernel refused.
bool SetGuard(G* g, Addr low, size_t size);

// The G whose struct pthread lies at `thread`, if a slot is there; else null. Any value is fine.
// `block` is the size of struct pthread.
G* SlotOf(Addr thread, size_t block);

// The G of the slot around any address, null when there is no slot; *end: where the slot or the gap
// ends. Of a slot that was never taken the G is all zero.
G* SlotAround(Addr at, Addr* end);

// Every slot ever made: follow G::all_next.
G* FirstSlot();

// Bounds of all slots made so far; equal when there are none.
void SlotRange(Addr* low, Addr* high);

// Bytes of address space: of all slots made so far, and of those with a thread. Any thread.
struct SlotSizes {
  uint64_t mapped, in_use;
};
SlotSizes ReadSlotSizes();

// In a forked child, before it has threads: all slots but one are as new.
void DropSlots(const G* kept);

}  // namespace undergo::sched
