// SPDX-License-Identifier: Apache-2.0
// UNDERGO=gc=quarantine: what the program frees is not used again while anything points to it, and
// nothing else is reclaimed. A use after free then always meets the old contents, never an object
// of another owner.
//
// A freed object keeps its slot, its contents and its place in the mark; it has a bit in the plane
// kFreed. A sweep that finds it unmarked frees the slot. Freed objects count as live heap, so the
// pacer bounds them: a cycle comes when they and the living have grown by GOGC percent. Objects
// that the program lost without freeing them stay.
#pragma once

#include "heap/arena.h"
#include "heap/sweep.h"

namespace undergo::heap {

// Called once, while there is one thread.
void StartQuarantine();
// Frees free at once again, since no cycle will come any more. What is in quarantine stays there.
void StopQuarantine();
inline bool QuarantineOn() { return LoadRelaxed(&gc_heap.mode) == ReclaimMode::kQuarantine; }

// The program frees an object. False: it had done so before. Any context.
bool QuarantineFree(Span* s, uint32_t slot);
bool IsQuarantined(const Span* s, uint32_t slot);
inline uint64_t QuarantinedBits(const Span* s, uint32_t w) {
  return LoadRelaxed(RareBits(s, RarePlane::kFreed) + w);
}

// Slots of word w go to new owners; a span gets its first objects.
void ClearQuarantined(Span* s, uint32_t w, uint64_t bits);
void ClearAllQuarantined(Span* s);

}  // namespace undergo::heap
