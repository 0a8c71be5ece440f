// SPDX-License-Identifier: Apache-2.0
// First-fit allocation of slice runs.
//
// Problem: hand out runs of 64 KiB slices, low addresses first, so that the top of the heap drains
// and memory that was used before is used again before fresh memory is touched.
// A bitmap coalesces free neighbours by itself and keeps nothing in the free memory. Its weakness
// is the search: hint_[k] bounds it from below for requests of at least 2^k slices; a search that
// succeeds raises the hint of the next power of two, a free lowers all that lie above it.
// Rejected: best fit (it needs a sorted index of runs, and measured no better in footprint for
// allocators that separate small objects), buddy (rounds large objects up to powers of two).
#include "heap/slice_alloc.h"

#include "base/assert.h"
#include "base/bits.h"
#include "heap/blacklist.h"

namespace undergo::heap {

namespace {

// Start of the free run that ends just below `at`, not below `begin`.
uint32_t FreeRunStart(const uint64_t* used, uint32_t at, uint32_t begin) {
  while (at > begin && !TestBit(used, at - 1)) {
    bool whole_word = at % 64 == 0 && at - begin >= 64 && used[at / 64 - 1] == 0;
    at -= whole_word ? 64 : 1;
  }
  return at;
}

}  // namespace

void SliceAlloc::SetBegin(uint32_t begin, uint64_t phase) {
  begin_ = end_ = begin;
  phase_ = phase;
  for (uint32_t& h : hint_) h = begin;
}

uint32_t SliceAlloc::Alloc(uint32_t count, uint32_t align) {
  UNDERGO_ASSERT(count > 0 && IsPowerOfTwo(align));
  size_t at = hint_[HighestBit(count)];
  for (;;) {
    at = FindBit(used_, end_, at, false);
    at = AlignUp(at + phase_, align) - phase_;
    if (at + count > end_) return kNone;
    size_t stop = FindBit(used_, at + count, at, true);
    if (stop == at + count) break;
    at = stop;
  }
  uint32_t result = static_cast<uint32_t>(at);
  int above = count == 1 ? 0 : static_cast<int>(HighestBit(count - 1)) + 1;
  if (align == 1 && hint_[above] < result) hint_[above] = result;
  Take(result, count);
  return result;
}

uint32_t SliceAlloc::AllocAvoiding(uint32_t count, const Blacklist& list) {
  UNDERGO_ASSERT(count == 1 || count == 2 || count == 4);
  uint32_t from = hint_[HighestBit(count)];
  for (uint32_t w = from / 64; w * 64 < end_; ++w) {
    uint64_t free = ~(used_[w] | list.Word(w));
    if (w == begin_ / 64) free &= ~LowMask(begin_ % 64);
    if (end_ - w * 64 < 64) free &= LowMask(end_ - w * 64);
    // Runs across the border of words are left to others.
    if (count >= 2) free &= free >> 1;
    if (count == 4) free &= free >> 2;
    if (free == 0) continue;
    uint32_t at = w * 64 + LowestBit(free);
    Take(at, count);
    return at;
  }
  return kNone;
}

bool SliceAlloc::AllocAt(uint32_t at, uint32_t count) {
  if (size_t{at} + count > end_) return false;
  if (FindBit(used_, at + count, at, true) != at + count) return false;
  Take(at, count);
  return true;
}

void SliceAlloc::Take(uint32_t at, uint32_t count) {
  SetBits(used_, at, count, true);
  SetBits(aged_, at, count, false);
  dirty_free_ -= static_cast<uint32_t>(CountBitsIn(dirty_, at, count));
  used_count_ += count;
}

void SliceAlloc::Free(uint32_t at, uint32_t count, bool dirty) {
  UNDERGO_ASSERT(CountBitsIn(used_, at, count) == count);
  SetBits(used_, at, count, false);
  if (dirty) SetBits(dirty_, at, count, true);
  dirty_free_ += static_cast<uint32_t>(CountBitsIn(dirty_, at, count));
  used_count_ -= count;
  // The run may join a free run that begins below it.
  uint32_t start = FreeRunStart(used_, at, begin_);
  for (uint32_t& h : hint_) {
    if (h > start) h = start;
  }
}

bool SliceAlloc::IsDirty(uint32_t at, uint32_t count) const {
  return FindBit(dirty_, at + count, at, true) != at + count ||
         FindBit(stale_, at + count, at, true) != at + count;
}

void SliceAlloc::SetClean(uint32_t at, uint32_t count, bool stale) {
  // Called for slices that are taken: dirty_free_ does not count them.
  UNDERGO_ASSERT(CountBitsIn(used_, at, count) == count);
  SetBits(dirty_, at, count, false);
  SetBits(stale_, at, count, stale);
}

uint32_t SliceAlloc::FreeTail() const { return end_ - FreeRunStart(used_, end_, begin_); }

void SliceAlloc::AgeAll() {
  for (uint32_t w = begin_ / 64; w < (end_ + 63) / 64; ++w) {
    uint64_t old = dirty_[w] & ~used_[w];
    if (aged_[w] != old) aged_[w] = old;
  }
}

bool SliceAlloc::FindAged(uint32_t from, uint32_t max_count, uint32_t* at, uint32_t* count) const {
  size_t first = FindBit(aged_, end_, Max(from, begin_), true);
  if (first == end_) return false;
  size_t last = FindBit(aged_, Min(end_, first + max_count), first, false);
  *at = static_cast<uint32_t>(first);
  *count = static_cast<uint32_t>(last - first);
  return true;
}

bool SliceAlloc::FindDirtyBelow(uint32_t to, uint32_t max_count, uint32_t* at,
                                uint32_t* count) const {
  uint32_t last = Min(to, end_);
  auto wanted = [this](uint32_t slice) { return TestBit(dirty_, slice) && !TestBit(used_, slice); };
  while (last > begin_ && !wanted(last - 1)) {
    bool whole_word = last % 64 == 0 && last - begin_ >= 64 &&
                      (dirty_[last / 64 - 1] & ~used_[last / 64 - 1]) == 0;
    last -= whole_word ? 64 : 1;
  }
  if (last == begin_) return false;
  uint32_t first = last - 1;
  while (first > begin_ && last - first < max_count && wanted(first - 1)) --first;
  *at = first;
  *count = last - first;
  return true;
}

uint32_t SliceAlloc::CountDirtyFree(uint32_t at, uint32_t count) const {
  uint32_t n = 0;
  for (uint32_t i = at; i < at + count; ++i) n += TestBit(dirty_, i) && !TestBit(used_, i);
  return n;
}

uint32_t SliceAlloc::CountAged(uint32_t at, uint32_t count) const {
  return static_cast<uint32_t>(CountBitsIn(aged_, at, count));
}

}  // namespace undergo::heap
