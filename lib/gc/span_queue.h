// SPDX-License-Identifier: Apache-2.0
// Spans with objects that are marked and wait to be scanned, oldest first. Each marker has one.
//
// The longer a span waits, the more of its objects are found and can be scanned together, so the
// order is strict, and a queue must hold all spans of the heap. A span waits once, here or in the
// pool, so the links lie in a table by slice. An entry remembers the object for which it was made:
// while that is the only one, nobody need look for it in the marks.
#pragma once

#include "base/types.h"
#include "heap/arena.h"
#include "heap/mheap.h"

namespace undergo::gc {

class SpanQueue {
 public:
  bool empty() const { return count_ == 0; }
  uint32_t count() const { return count_; }
  // Whether the one that Take will return has several objects to scan. Not empty.
  bool ManyAtHead() const {
    return LoadRelaxed(&heap::QueueEntryOf(head_)->waits) == heap::kManyWait;
  }
  uint32_t head() const { return head_; }

  // This slot of the span that begins with the slice has just been marked. When the span waits
  // already, here or elsewhere, who takes it out will see the mark.
  void Put(uint32_t slice, uint32_t slot) {
    uint32_t* waits = &heap::QueueEntryOf(slice)->waits;
    uint32_t now = LoadRelaxed(waits);
    while (now != heap::kManyWait) {
      uint32_t then = now == 0 ? slot + 1 : heap::kManyWait;
      if (!CasAcqRel(waits, &now, then)) continue;  // pairs: Leave
      if (now != 0) return;
      heap::NoteMarks(slice, 1);
      Append(slice);
      return;
    }
  }

  // One that waits already and comes from the pool.
  void Append(uint32_t slice) {
    if (empty()) {
      head_ = slice;
    } else {
      heap::QueueEntryOf(tail_)->next = slice;
    }
    tail_ = slice;
    count_++;
  }

  // The oldest one; it still counts as waiting, until Leave. Not empty.
  uint32_t Take() {
    uint32_t slice = head_;
    if (--count_ != 0) head_ = heap::QueueEntryOf(slice)->next;
    return slice;
  }

  // What it waited for, see QueueEntry. Before its marks are read.
  static uint32_t Leave(uint32_t slice) {
    return ExchangeAcqRel(&heap::QueueEntryOf(slice)->waits, 0u);  // pairs: Put
  }

  void Forget() { count_ = 0; }

  // Nobody marks. A cycle that was abandoned may have left spans that seem to wait.
  static void ForgetAll() {
    for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
      uint32_t from = heap::RegionBegin(r), to = heap::mheap.end(r);  // 0: no slice
      for (uint32_t slice = from; slice < to; ++slice) *heap::QueueEntryOf(slice) = {};
    }
  }

 private:
  uint32_t head_ = 0, tail_ = 0;  // slices; have no meaning when it is empty
  uint32_t count_ = 0;
};

}  // namespace undergo::gc
