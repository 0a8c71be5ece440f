// SPDX-License-Identifier: Apache-2.0
// Pages without pointers.
//
// Problem. A conservative marker does not know which objects hold pointers, so it reads a gigabyte
// of images, columns or compressed blocks in each cycle, and finds nothing each time.
//
// What is done. A page of which no word points into the heap, and which nobody writes to, need not
// be read again. The kernel notices writes anyway while a mark runs; slices with such pages stay
// armed after it, and the next cycle begins with asking which pages were written meanwhile.
//
//   armed for this mark, no pointer seen          -> fresh
//   written since (any look at written pages)     -> written
//   at the flip    clean = (clean | fresh) & ~written, and the slice stays armed
//   next cycle     clean &= ~(written since the flip)
//
// Why nothing is lost. A clean page was armed, then read, and not written since: what was seen is
// what is there. Facts about pages do not depend on what objects lie there, so free, reuse and
// resizing need no notice. A page that was given back to the kernel reads as zero, and counts as
// written when it appears again. A marker that skips a page while it is being written is in the
// race that all marking is in: `written` is set before the marks of the page's objects are looked
// at, marks are set before `written` is looked at, both by locked instructions, so one of the two
// scans the page. Words across the border of two pages are tested with both.
//
// What may become a pointer later: the test is not whether a word points to an object, but whether
// it points into the heap's memory or a padding behind it, four times its size. When the heap grows
// beyond the padding, all is forgotten. (The whole reservation would do without, but of random
// words with their tags taken off one in 128 points into a terabyte, one in 32768 into 4 GiB.)
//
// Writes that no page table sees, by a device into memory that was pinned before it was armed:
// gc/kernel_roots.h tells whether the process could have such (O_DIRECT, AIO, devices); nothing
// stays clean then. Mappings that the program put into the heap are careful (heap/careful.h) and
// read always. A forked child, another facility, a userfaultfd that was opened anew: forgotten.
//
// What it costs. The first write to an armed page is a fault, three times the time of reading it.
// A slice that was armed in vain is left out for 1, 3, 7, ... cycles. And a program that uses its
// buffers once or over and over would pay for all of them before anything is known of any. So a
// few slices are tried first; the rest follows when most pages of these were left alone and cycles
// find garbage: else they are rare, and reading once more is cheaper than faults.
//
// Only the lower region: the upper one has huge pages, and armed ones break up at the first write.
#include "gc/clean_pages.h"

#include "base/bits.h"
#include "heap/careful.h"
#include "heap/mheap.h"
#include "plat/vm.h"

namespace undergo::gc {

namespace {

constexpr size_t kMinPadded = kGiB;
constexpr size_t kPadding = 4;      // times the heap
constexpr uint32_t kKeepFrom = 12;  // clean pages of a slice
constexpr uint32_t kInVain = 4;     // of those written until the next cycle
constexpr uint32_t kMaxFailures = 7;
constexpr uint32_t kTried = 64;      // slices that stay armed when nothing is known,
constexpr uint32_t kTriedPart = 16;  // and of the others one in so many
constexpr uint32_t kLostPart = 4;    // at most one page in so many was written: it pays
constexpr size_t kPageWords = kOsPageSize / sizeof(uint64_t);

uint32_t PageOf(Addr a) {
  return static_cast<uint32_t>((a - heap::arena.base) / kOsPageSize) % CleanPages::kPerSlice;
}

// Bits of the pages of [from, to) in the slice of `from`.
uint16_t PagesOf(Addr from, Addr to) {
  uint32_t first = PageOf(from);
  size_t pages = Min((to - from) / kOsPageSize, size_t{CleanPages::kPerSlice - first});
  return static_cast<uint16_t>(LowMask(static_cast<uint32_t>(pages)) << first);
}

Addr SliceEnd(Addr a, Addr end) {
  return Min(AlignDown(a, heap::kSliceSize) + heap::kSliceSize, end);
}

uint32_t CountPages(uint16_t bits) { return static_cast<uint32_t>(__builtin_popcount(bits)); }

// Of a region that may not exist.
uint32_t UsedSlices(heap::Region r) {
  uint32_t begin = heap::RegionBegin(r);
  return Max(heap::mheap.end(r), begin) - begin;
}

size_t UsedBytes(heap::Region r) { return size_t{UsedSlices(r)} << heap::kSliceShift; }

size_t PaddedBytes(heap::Region r) { return Max(UsedBytes(r) * kPadding, kMinPadded); }

}  // namespace

bool CleanPages::Reserve(uint32_t slices) {
  if (slices > capacity_) {
    size_t bytes =
        AlignUp(Max(size_t{slices} * sizeof(Slice), capacity_ * 2 * sizeof(Slice)), kOsPageSize);
    auto* fresh = static_cast<Slice*>(plat::MapPages(bytes));
    if (fresh == nullptr) return false;
    if (slices_ != nullptr) {
      __builtin_memcpy(fresh, slices_, count_ * sizeof(Slice));
      plat::Unmap(reinterpret_cast<Addr>(slices_), capacity_ * sizeof(Slice));
    }
    slices_ = fresh;
    capacity_ = static_cast<uint32_t>(bytes / sizeof(Slice));
  }
  count_ = Max(count_, slices);
  return true;
}

void CleanPages::Begin(const ScanTarget& target, uint64_t tracking) {
  if (!Reserve(UsedSlices(heap::Region::kLower))) tracking = 0;
  bool outgrown = UsedBytes(heap::Region::kLower) > lower_size_ ||
                  UsedBytes(heap::Region::kUpper) > upper_size_;
  if (tracking == tracking_ && tracking != 0 && base_ == target.base && !outgrown) return;
  tracking_ = tracking;
  base_ = target.base;
  lower_size_ = PaddedBytes(heap::Region::kLower);
  upper_ = heap::SliceAddr(heap::RegionBegin(heap::Region::kUpper));
  upper_size_ = PaddedBytes(heap::Region::kUpper);
  for (uint32_t i = 0; i < count_; ++i) {
    slices_[i].clean = slices_[i].known = 0;
    slices_[i].kept = false;
  }
}

void CleanPages::SetWritten(Addr from, Addr to) {
  while (from < to) {
    Slice* s = Find(from);
    if (s == nullptr) return;
    uint16_t pages = PagesOf(from, to);
    // Not only acquire and release: the caller looks at marks after it.
    if ((LoadRelaxed(&s->written) & pages) != pages) {
      __atomic_fetch_or(&s->written, pages, __ATOMIC_SEQ_CST);  // pairs: Skippable
    }
    from = SliceEnd(from, to);
  }
}

void CleanPages::Armed() {
  uint64_t all_kept = 0, all_lost = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    Slice& s = slices_[i];
    if (s.kept) {
      uint32_t lost = CountPages(s.clean & s.written);
      all_kept += CountPages(s.clean);
      all_lost += lost;
      if (lost >= kInVain) {
        s.failures = static_cast<uint8_t>(Min(s.failures + 1u, kMaxFailures));
        s.wait = static_cast<uint8_t>((1u << s.failures) - 1);
      } else if (lost == 0 && s.failures != 0) {
        --s.failures;
      }
    }
    s.clean &= static_cast<uint16_t>(~s.written);
    s.written = s.read = s.fresh = 0;
  }
  if (all_kept != 0) pays_ = all_lost * kLostPart <= all_kept;
}

uint16_t CleanPages::Skippable(Addr a, const Slice& s) const {
  if (s.clean == 0 || blind_ || heap::SliceIsCareful(heap::SliceOf(a))) return 0;
  return s.clean & static_cast<uint16_t>(~LoadAcquire(&s.written));  // pairs: SetWritten
}

Addr CleanPages::SkipFrom(Addr from, Addr end) const {
  while (from < end) {
    const Slice* s = Find(from);
    if (s == nullptr) break;
    Addr stop = SliceEnd(from, end);
    auto left = static_cast<uint16_t>(PagesOf(from, stop) & ~Skippable(from, *s));
    if (left != 0) {
      return AlignDown(from, heap::kSliceSize) + LowestBit(uint64_t{left}) * kOsPageSize;
    }
    from = stop;
  }
  return from;
}

Addr CleanPages::ReadUpTo(Addr from, Addr end, bool* exist) const {
  *exist = true;
  while (from < end) {
    const Slice* s = Find(from);
    if (s == nullptr) {
      *exist = false;
      return end;
    }
    Addr stop = SliceEnd(from, end);
    auto skip = static_cast<uint16_t>(PagesOf(from, stop) & Skippable(from, *s));
    if (skip != 0)
      stop = AlignDown(from, heap::kSliceSize) + LowestBit(uint64_t{skip}) * kOsPageSize;
    uint16_t pages = stop > from ? PagesOf(from, stop) : uint16_t{0};
    if ((s->known & pages) != pages) *exist = false;
    if (skip != 0) return stop;
    from = stop;
  }
  return end;
}

void CleanPages::NoteRead(Addr page, bool no_pointer) {
  Slice* s = Find(page);
  if (s == nullptr) return;
  auto bit = static_cast<uint16_t>(1u << PageOf(page));
  if ((LoadRelaxed(&s->read) & bit) == 0) FetchOrAcqRel(&s->read, bit);  // pairs: nothing, a hint
  if (no_pointer) FetchOrAcqRel(&s->fresh, bit);  // pairs: the stop before End
}

void CleanPages::End(bool valid) {
  if (tracking_ == 0) valid = false;
  uint32_t tried = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    Slice& s = slices_[i];
    auto clean = static_cast<uint16_t>((s.clean | s.fresh) & ~s.written);
    s.known = s.read | s.clean;
    s.kept = valid && CountPages(clean) >= kKeepFrom;
    if (s.kept && s.wait != 0) {
      --s.wait;
      s.kept = false;
    } else if (s.kept && (!pays_ || rare_)) {
      s.kept = tried++ < kTried || tried % kTriedPart == 0;
    }
    s.clean = s.kept ? clean : uint16_t{0};
  }
  if (!valid) tracking_ = 0;
}

uint64_t CleanPages::CountWrong(const ScanTarget& target) const {
  uint64_t found[ScanRoom(kScanBlock)], wrong = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    // What was written there is not told (gc/rescan.cc).
    if (LoadRelaxed(heap::NotedMarks(i)) == 0) continue;
    const Slice& s = slices_[i];
    uint64_t claimed = (s.clean | s.fresh) & ~uint32_t{s.written};
    for (; claimed != 0; claimed &= claimed - 1) {
      Addr page = heap::SliceAddr(i) + LowestBit(claimed) * kOsPageSize;
      if (heap::RangeIsCareful(page, page + kOsPageSize)) continue;
      bool pointer = false;
      for (size_t w = 0; w < kPageWords; w += kScanBlock) {
        size_t n = scan(reinterpret_cast<const uint64_t*>(page) + w, kScanBlock, target, found);
        for (size_t k = 0; k < n; ++k) pointer |= IsPointer(found[k]);
      }
      wrong += pointer;
    }
  }
  return wrong;
}

}  // namespace undergo::gc
