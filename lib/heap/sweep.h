// SPDX-License-Identifier: Apache-2.0
// Sweeping one span: slots that are neither free nor marked become free.
#pragma once

#include "heap/span.h"

namespace undergo::heap {

struct SweepResult {
  bool swept;      // false: it had been swept for this generation, or another thread does it
  uint32_t slots;  // reclaimed
};

// Sweep generation of the heap; a span of an older generation needs sweeping. Go up by two, as in
// Go, with the mutators stopped: generation - 1 means that a sweep is under way.
extern constinit uint32_t heap_sweepgen;

// Frees the unmarked objects of a small span. Marks are bits of plane `plane`. Any thread; the
// owner of the span may allocate and free meanwhile.
SweepResult SweepSpan(Span* s, uint32_t plane);

}  // namespace undergo::heap
