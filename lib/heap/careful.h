// SPDX-License-Identifier: Apache-2.0
// Parts of the heap that the collector may not simply read: the program changed the protection or
// the mapping of memory that it got from malloc (guard pages of coroutine stacks, sealed tables).
#pragma once

#include "base/atomic.h"
#include "base/compiler.h"
#include "heap/arena.h"

namespace undergo::heap {

struct CarefulMap {
  uint64_t* bits = nullptr;  // one for each slice; atomic, made by the first MakeCareful
  bool all = false;          // no memory for the bits: everything is careful
  bool any = false;          // atomic; false: nothing is, no page is guarded: all a reader looks at
};
extern constinit CarefulMap careful_map;

// The program is about to take away rights to [from, from + size), or to change what is mapped
// there. The slices that it touches are careful from now on, for ever: their objects are read by
// copying only, and never reclaimed, as the next owner would get pages that it cannot use. On
// return nobody reads them directly any more. Safe in signal handlers; keeps errno. Parts outside
// the heap are ignored.
void MakeCareful(Addr from, size_t size);

bool SliceIsCarefulSlow(uint32_t slice);
inline bool SliceIsCareful(uint32_t slice) {
  return UNDERGO_UNLIKELY(LoadAcquire(&careful_map.any)) &&  // pairs: MakeCareful
         SliceIsCarefulSlow(slice);
}
// One of the slices that [from, to) touches is, or one of the pages is guarded (heap/poison.h).
bool RangeIsCarefulSlow(Addr from, Addr to);
inline bool RangeIsCareful(Addr from, Addr to) {
  return UNDERGO_UNLIKELY(LoadAcquire(&careful_map.any)) &&  // pairs: MakeCareful
         RangeIsCarefulSlow(from, to);
}
// One of the slices of the span is; guarded pages do not count.
bool SpanIsCareful(const Span* s);

// Held by who reads objects of the program without copying, for a millisecond at most: first the
// scope, then the question, then the object. May be nested.
class DirectReads {
 public:
  DirectReads();
  ~DirectReads();
  DirectReads(const DirectReads&) = delete;
  DirectReads& operator=(const DirectReads&) = delete;

 private:
  uint32_t* counter_;
};

// In a forked child, where other readers are gone.
void ResetDirectReadsInChild();

}  // namespace undergo::heap
