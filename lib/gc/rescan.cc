// SPDX-License-Identifier: Apache-2.0
// The heap in the final stop: marked objects on pages that were written since they were armed.
//
// Problem. To find a handful of written pages the kernel has to go through the page tables of the
// whole heap, some 2 ns a page: half a millisecond for a GiB, and everybody waits.
//
// What is left out, because what was written there does not matter: slices in which nothing is
// marked, free or not. They are about as many as the others, as the heap doubles between cycles.
// A byte for each slice tells (heap::NoteMarks): the marks themselves are more lines of memory than
// the page tables. An object that is marked later in this stop is read then, all of it, and
// CleanPages is blind meanwhile: it was not told which pages of that object were written. The pages
// that nobody looked at stay written until they are armed again, so the next cycle hears of them.
//
// The rest goes chunk by chunk to the workers. A gap that is shorter than the price of a request is
// looked at as well.
//
// Rejected: to ask the queue's entries and the kinds of slices, nine bytes for each, which took
// half as long as the page tables.
#include "base/bits.h"
#include "gc/cycle.h"
#include "heap/mheap.h"
#include "heap/walk.h"

namespace undergo::gc {

namespace {

constexpr size_t kChunk = 32 * kMiB;  // of the heap, taken by one worker
constexpr uint32_t kGapSlices = 32;   // to step over; a request is a microsecond

// The first slice of [at, last) with marks, or without; `last` if there is none.
uint32_t Find(uint32_t at, uint32_t last, bool with) {
  // Eight alike at a time.
  uint64_t others = with ? 0 : ~uint64_t{0} / 255, eight;
  for (; at + sizeof eight <= last; at += sizeof eight) {
    __builtin_memcpy(&eight, heap::NotedMarks(at), sizeof eight);
    if (eight != others) break;
  }
  while (at < last && (LoadRelaxed(heap::NotedMarks(at)) != 0) != with) ++at;
  return at;
}

// The next run in [*from, end) that is to be looked at.
bool NextRun(Addr* from, Addr* to, Addr end) {
  uint32_t last = heap::SliceOf(end);
  uint32_t first = Find(heap::SliceOf(*from), last, true), next = first, stop = first;
  while (next < last && next - stop < kGapSlices) {
    stop = Find(next, last, false);
    next = Find(stop, last, true);
  }
  *from = heap::SliceAddr(first);
  *to = heap::SliceAddr(stop);
  return first < last;
}

// Of the gaps that NextRun did not step over, and of the slack behind large objects.
bool HasMarks(void*, Addr from, Addr to) {
  uint32_t last = heap::SliceOf(to - 1) + 1;
  return Find(heap::SliceOf(from), last, true) < last;
}

}  // namespace

// World stopped, before the flip: objects that are marked where RescanHeap does not look.
// GODEBUG=gccheckmark=1.
uint64_t Cycle::CountLeftOut() {
  uint64_t wrong = 0;
  auto check = [&wrong](Addr from, size_t size) {
    bool noted = true;
    for (uint32_t i = heap::SliceOf(from); i <= heap::SliceOf(from + size - 1); ++i) {
      noted &= LoadRelaxed(heap::NotedMarks(i)) != 0;
    }
    wrong += !noted;
  };
  heap::ForEachSpan([check](heap::Span* s) {
    const uint64_t* marks = heap::MarkBits(s, heap::Plane::kMarked);
    if (LoadRelaxed(&s->state) == heap::SpanState::kLarge) {
      if ((marks[0] & 1) != 0) check(heap::SpanAddr(s), s->large_bytes);
      return;
    }
    for (uint32_t w = 0; w < s->words(); ++w) {
      for (uint64_t bits = marks[w] & heap::AllocatedBits(s, w); bits != 0; bits &= bits - 1) {
        uint32_t slot = w * 64 + LowestBit(bits);
        check(heap::SpanAddr(s) + size_t{slot} * s->slot_size, s->slot_size);
      }
    }
  });
  return wrong;
}

// Written pages, few enough to be scanned without a look at the clock.
void Cycle::RescanPages(Marker* marker, Addr from, Addr to) {
  FetchAddRelaxed(&dirty_pages_, static_cast<uint32_t>((to - from) / kOsPageSize));
  clean_pages_.Written(from, to);
  marker->ScanPages(from, to);
  // Few pages are scanned at once; to come again for them would take another look at all.
  if (LoadRelaxed(&dirty_pages_) > kFewPages && StopIsLate()) StoreRelaxed(&give_up_, 1u);
}

// Written pages of the heap, chunk by chunk, with the other workers.
void Cycle::RescanHeap(uint32_t worker) {
  Marker& marker = storage_->markers[worker];
  struct Context {
    Cycle* cycle;
    Marker* marker;
  } context = {this, &marker};
  auto run = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    while (from < to && LoadRelaxed(&c->cycle->give_up_) == 0) {
      Addr end = Min(to, from + kFewPages * kOsPageSize);
      c->cycle->RescanPages(c->marker, from, end);
      from = end;
    }
  };
  for (;;) {
    if ((LoadRelaxed(&give_up_) | LoadRelaxed(&lost_)) != 0) break;
    uint64_t chunk = FetchAddRelaxed(&next_chunk_, 1u);
    Addr from = 0, end = 0;
    for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
      Addr begin = heap::SliceAddr(heap::RegionBegin(r));
      end = Max(begin, heap::SliceAddr(heap::mheap.end(r)));
      uint64_t chunks = (end - begin + kChunk - 1) / kChunk;
      from = begin + chunk * kChunk;
      if (chunk < chunks) break;
      chunk -= chunks;
      from = end;
    }
    if (from >= end) break;
    end = Min(from + kChunk, end);
    for (Addr to; NextRun(&from, &to, end); from = to) {
      bool read = tracker_.CollectDense(from, to - from, HasMarks, run, &context);
      if (!read) StoreRelaxed(&lost_, 1u);
    }
  }
}

}  // namespace undergo::gc
