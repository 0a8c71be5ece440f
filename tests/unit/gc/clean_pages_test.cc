// SPDX-License-Identifier: Apache-2.0
// What is known of pages: when they may be skipped, and everything that ends it.

#include "gc/clean_pages.h"

#include <criterion/criterion.h>
#include <string.h>

#include "gc/marker.h"
#include "heap/large.h"
#include "heap/malloc.h"
#include "heap/mheap.h"

using namespace undergo;

namespace {

constexpr size_t kPage = kOsPageSize;
constexpr size_t kPages = 64;

gc::ScanTarget Target() {
  return {heap::arena.base, size_t{heap::RegionLimit(heap::Region::kUpper)} << heap::kSliceShift,
          0};
}

// A block of whole slices, known to the collector's tables.
struct Block {
  Addr from, to;
  Block() {
    void* p = heap::MallocLarge(kPages * kPage - 100, 1, false);
    cr_assert(p != nullptr);
    from = reinterpret_cast<Addr>(p);
    to = from + kPages * kPage;
  }
  Addr Page(size_t i) const { return from + i * kPage; }
};

constinit gc::CleanPages clean;

void Cycle(const Block& b, uint64_t tracking, bool no_pointer, bool valid = true) {
  clean.Begin(Target(), tracking);
  clean.Armed();
  for (Addr page = b.from; page < b.to; page += kPage) clean.NoteRead(page, no_pointer);
  clean.End(valid);
}

size_t Unkept(const Block& b) {
  size_t bytes = 0;
  clean.ForEachUnkept(b.from, b.to, [&](Addr from, Addr to) { bytes += to - from; });
  return bytes;
}

}  // namespace

Test(clean_pages, are_skipped_from_the_next_cycle_on) {
  Block b;
  clean.Begin(Target(), 1);
  clean.Armed();
  cr_expect_eq(clean.SkipFrom(b.from, b.to), b.from);
  Cycle(b, 1, true);
  cr_expect_eq(Unkept(b), 0u);
  clean.Begin(Target(), 1);
  clean.Armed();
  cr_expect_eq(clean.SkipFrom(b.from, b.to), b.to);
  cr_expect_eq(clean.SkipFrom(b.Page(3), b.Page(9)), b.Page(9));
}

Test(clean_pages, with_pointers_are_read) {
  Block b;
  Cycle(b, 1, false);
  cr_expect_eq(Unkept(b), b.to - b.from);
  clean.Begin(Target(), 1);
  clean.Armed();
  bool exist;
  cr_expect_eq(clean.SkipFrom(b.from, b.to), b.from);
  cr_expect_eq(clean.ReadUpTo(b.from, b.to, &exist), b.to);
  cr_expect(exist);
}

Test(clean_pages, written_ones_are_read_at_once_and_later) {
  Block b;
  Cycle(b, 1, true);
  clean.Begin(Target(), 1);
  clean.WrittenBefore(b.Page(5), b.Page(6));
  clean.Armed();
  bool exist;
  cr_expect_eq(clean.SkipFrom(b.from, b.to), b.Page(5));
  cr_expect_eq(clean.ReadUpTo(b.Page(5), b.to, &exist), b.Page(6));
  cr_expect(exist);
  clean.Written(b.Page(20), b.Page(40));
  cr_expect_eq(clean.SkipFrom(b.Page(6), b.to), b.Page(20));
  cr_expect_eq(clean.ReadUpTo(b.Page(20), b.to, &exist), b.Page(40));
  // Read before or after the write: not known.
  clean.NoteRead(b.Page(5), true);
  clean.NoteRead(b.Page(20), true);
  clean.End(true);
  clean.Begin(Target(), 1);
  clean.Armed();
  cr_expect_eq(clean.SkipFrom(b.from, b.to), b.Page(16),
               "a slice that is mostly written is dropped");
}

Test(clean_pages, are_forgotten) {
  Block b;
  auto expect_read = [&b](const char* why) {
    clean.Armed();
    cr_expect_eq(clean.SkipFrom(b.from, b.to), b.from, "%s", why);
  };
  Cycle(b, 1, true);
  clean.Begin(Target(), 2);
  expect_read("another userfaultfd");
  Cycle(b, 2, true, false);
  clean.Begin(Target(), 2);
  expect_read("the mark was not complete");
  Cycle(b, 2, true);
  // Twenty times what was there.
  cr_assert(heap::MallocLarge(size_t{20} * kGiB, 1, false) != nullptr);
  clean.Begin(Target(), 2);
  expect_read("the heap has grown");
}

Test(clean_pages, that_are_written_each_time_are_left_alone) {
  Block b;
  uint32_t kept = 0;
  for (int cycle = 0; cycle < 64; ++cycle) {
    clean.Begin(Target(), 1);
    clean.WrittenBefore(b.from, b.to);
    clean.Armed();
    for (Addr page = b.from; page < b.to; page += kPage) clean.NoteRead(page, true);
    clean.End(true);
    kept += Unkept(b) == 0;
  }
  cr_expect_lt(kept, 10u);
  cr_expect_gt(kept, 3u);
}

// The marker notes what it finds, and finds what lies across the border of pages.
// One large block; how much of it stays armed when it was written between cycles, or was not.
Test(clean_pages, few_are_tried_until_it_pays) {
  constexpr size_t kSlices = 1024;
  auto from = reinterpret_cast<Addr>(heap::MallocLarge(kSlices * heap::kSliceSize, 1, false));
  Addr to = from + kSlices * heap::kSliceSize;
  auto kept_after = [from, to](double written) {
    clean.Begin(Target(), 1);
    Addr end =
        AlignDown(from + static_cast<size_t>(written * static_cast<double>(to - from)), kPage);
    if (end > from) clean.WrittenBefore(from, end);
    clean.Armed();
    for (Addr page = from; page < to; page += kPage) clean.NoteRead(page, true);
    clean.End(true);
    size_t kept = kSlices;
    clean.ForEachUnkept(from, to, [&](Addr a, Addr b) { kept -= (b - a) / heap::kSliceSize; });
    return kept;
  };
  size_t tried = kept_after(0);
  cr_expect(tried > 64 && tried < 192, "%zu", tried);
  cr_expect_eq(kept_after(0), kSlices);
  clean.SetRare(true);
  cr_expect_lt(kept_after(0), 192u);
  clean.SetRare(false);
  cr_expect_eq(kept_after(0), kSlices);
  cr_expect_gt(kept_after(0.2), kSlices * 7 / 10, "the written ones are left out");
  // These were not kept, and nothing of what was kept is written.
  cr_expect_gt(kept_after(0.2), kSlices * 7 / 10);
  cr_expect_lt(kept_after(1), 300u);
}

Test(clean_pages, marker_reads_across_borders) {
  Block b, other;
  auto target = Target();
  gc::WorkPool pool;
  static constinit gc::Marker marker;
  auto mark = [&](uint64_t tracking) {
    *heap::MarkBits(heap::FindSpan(b.from), heap::Plane::kMarked) = 0;
    *heap::MarkBits(heap::FindSpan(other.from), heap::Plane::kMarked) = 0;
    clean.Begin(target, tracking);
    clean.Armed();
    marker.Start(&pool, target, &clean);
    marker.MarkWord(b.from);
    marker.Drain(~uint64_t{0} >> 1);
    clean.End(true);
    return (*heap::MarkBits(heap::FindSpan(other.from), heap::Plane::kMarked) & 1) != 0;
  };
  memset(reinterpret_cast<void*>(b.from), 0x77, b.to - b.from);
  cr_expect(!mark(1));
  uint64_t read = marker.counts().scanned_bytes;
  cr_expect(!mark(1));
  cr_expect_eq(marker.counts().scanned_bytes, read);
  cr_expect_eq(marker.counts().skipped_bytes, b.to - b.from);
  for (size_t border : {size_t{1}, size_t{16}, kPages - 1}) {
    uint64_t word = other.from + 100, old = 0x7777777777777777;
    auto* at = reinterpret_cast<char*>(b.Page(border) - 4);
    memcpy(at, &word, 8);
    // Of the two pages one was written, or both: it is found.
    for (int which = 1; which <= 3; ++which) {
      mark(1);
      clean.Begin(target, 1);
      Addr from = b.Page(border) - ((which & 1) != 0 ? kPage : 0);
      clean.WrittenBefore(from, b.Page(border) + ((which & 2) != 0 ? kPage : 0));
      clean.Armed();
      cr_expect(mark(1), "border %zu, written %d", border, which);
    }
    memcpy(at, &old, 8);
    cr_expect(!mark(border + 100));
  }
}
