// SPDX-License-Identifier: Apache-2.0
// Pointers at odd addresses: UNDERGO=gc=poison finds out whether a program has any.
//
// Problem. Words count at multiples of four. What only a packed structure points to is garbage
// then, unless UNDERGO=unaligned=on, which makes marks twice as long and which few programs need.
// The audit has to tell who does, and to touch a dead object is a poor way to learn it: the
// program goes on with wrong bytes, and whether it comes to touch one is chance.
//
// So in this mode, at the end of each mark, the marked objects and the roots are searched once
// more, for words at the other offsets alone. A word that leads to an object without a mark is what
// was looked for: the object is kept, with all that it leads to, and from then on words count at
// every offset. Words at multiples of four are left out of the search: memory that nobody has
// written yet has old ones, which the mark rightly did not read.
//
// The world stands still for it, some 0.4 s for a GiB. Nobody measures a program in this mode, and
// it is over once something was found.
//
// Rejected: every offset from the start (nobody would learn that the option is needed), and such a
// search under gc=on (marks twice as long for all, to find the few).
#include "gc/cycle.h"
#include "heap/mheap.h"
#include "heap/sweep.h"
#include "heap/walk.h"

namespace undergo::gc {

namespace {
constexpr size_t kPiece = 4 * kMiB;  // of the heap, between two looks at what was found
}

void Cycle::KeepOddlyHeld(void (Cycle::*roots)()) {
  if (!search_odd_ || scan_step == 1) return;
  uint64_t before = counts().marked_objects;
  heap::ForEachSpan(heap::MarkFreeSlots);  // an old word may lead to one
  auto search = [this](auto where) {
    SetScanOffsets(Offsets::kOdd);
    where();
    SetScanOffsets(Offsets::kEvery);
    marker().Drain(~uint64_t{0} >> 1);
  };
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr at = heap::SliceAddr(heap::RegionBegin(r)), end = heap::SliceAddr(heap::mheap.end(r));
    for (; at < end; at += kPiece) {
      search([this, at, end] { marker().ScanPages(at, Min(at + kPiece, end)); });
    }
  }
  search([this, roots] {
    ScanStopped(true);
    (this->*roots)();
  });
  times_.odd_objects = counts().marked_objects - before;
  if (times_.odd_objects == 0) SetScanOffsets(Offsets::kAligned);
}

}  // namespace undergo::gc
