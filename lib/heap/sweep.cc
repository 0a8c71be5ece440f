// SPDX-License-Identifier: Apache-2.0
// Sweep by bit algebra.
//
// A sweep touches no object memory. For each word, garbage = valid & ~free & ~remote & ~cursor &
// ~marked, and one atomic OR of it into the remote bits frees up to 64 objects: the sweeper is
// just another thread that frees, and the owner takes the slots in with its next harvest.
// A program's own free that races with the OR sets the same bit, which is harmless. A span that was
// ever swept therefore reports no late double free (HarvestRemote).
#include "heap/sweep.h"

#include "heap/arena.h"
#include "heap/mcache.h"
#include "heap/walk.h"

namespace undergo::heap {

constinit uint32_t heap_sweepgen = 2;

SweepResult SweepSpan(Span* s, uint32_t plane) {
  uint32_t goal = LoadAcquire(&heap_sweepgen);  // pairs: the collector's flip
  uint32_t seen = LoadRelaxed(&s->sweepgen);
  if (seen == goal || seen == goal - 1 || s->state == SpanState::kLarge) return {false, 0};
  if (!CasAcqRel(&s->sweepgen, &seen, goal - 1)) return {false, 0};  // pairs: other sweepers
  const uint64_t* marks = MarkBits(s, plane);
  uint32_t slots = 0;
  for (uint32_t w = 0; marks != nullptr && w < s->words(); ++w) {
    uint64_t garbage = AllocatedBits(s, w) & ~LoadRelaxed(&marks[w]);
    if (garbage == 0) continue;
    FetchOrAcqRel(&s->remote_bits[w], garbage);  // pairs: HarvestRemote
    slots += CountBits(garbage);
  }
  StoreRelease(&s->sweepgen, goal);  // pairs: load above
  if (slots != 0) MarkReady(s);
  return {true, slots};
}

}  // namespace undergo::heap
