// SPDX-License-Identifier: Apache-2.0
// The page heap: growth, spans, and the delayed purge.
//
// Purging decides the speed of programs with large blocks: a page that is given back and touched
// again costs two system entries and a clearing, two hundred times a reuse. So nothing is given
// back inside free(). Free slices age in rounds of the purge delay: what was free and dirty through
// a whole round is purged in small steps outside the lock, by whichever thread comes through a slow
// path. A round in which much of what was purged before is needed again doubles the delay, up to
// eight times; a quiet round halves it.
//
// The reserve: a signal handler may allocate while its own thread is inside this file and holds the
// lock. Such a call takes slices from a small run kept aside, by compare-and-swap.
//
// Huge pages: from kHugeThreshold of heap on, spans that will soon be full of small objects come
// from the upper region, which asks for transparent huge pages before its first touch. Allocation
// by first fit fills it densely, so the gain (one fault and one clearing for 512 pages) costs at
// most the last, partly filled huge page. It is purged by whole huge pages only: a hole would split
// the page, and the kernel's collapser would fill it again. Large objects stay outside, because a
// program may touch little of them.
//
// Rejected: MADV_FREE (the memory stays in the resident set that operators look at), purging by
// size of the free run (it purges the working set of programs with large blocks), a time stamp for
// each slice (eight bytes for each, and a scan to use them).
#include "heap/mheap.h"

#include "base/assert.h"
#include "heap/blacklist.h"
#include "heap/sweep.h"
#include "heap/thread_words.h"
#include "plat/clock.h"
#include "plat/vm.h"

namespace undergo::heap {

namespace {

constexpr uint32_t kGrowSlices = 64 * kMiB / kSliceSize;
constexpr uint32_t kHugeThreshold = 32 * kMiB / kSliceSize;
// The first step: as far as small objects go without huge pages.
constexpr uint32_t kFirstSlices = kHugeThreshold;
constexpr uint32_t kReserveSlices = 64;
constexpr uint32_t kPurgeStepSlices = 64;  // 4 MiB outside the lock at a time
constexpr int kPurgeStepsPerTick = 4;
constexpr uint32_t kHugeSlices = kHugePageSize / kSliceSize;
constexpr uint32_t kMaxBackoff = 3;
constexpr uint32_t kShrinkPurgeSlices = 16;

// Holds the lock and tells a signal handler of this thread so.
class LockScope {
 public:
  explicit LockScope(sync::Mutex& m) : mutex_(m) {
    thread_words.in_mheap++;
    CompilerFence();
    mutex_.Lock();
  }
  ~LockScope() {
    mutex_.Unlock();
    CompilerFence();
    thread_words.in_mheap--;
  }
  LockScope(const LockScope&) = delete;
  LockScope& operator=(const LockScope&) = delete;

 private:
  sync::Mutex& mutex_;
};

constinit uint64_t used_bits[kMaxSlices / 64] = {};
constinit uint64_t dirty_bits[kMaxSlices / 64] = {};
constinit uint64_t aged_bits[kMaxSlices / 64] = {};
constinit uint64_t stale_bits[kMaxSlices / 64] = {};

}  // namespace

constinit MHeap mheap{used_bits, dirty_bits, aged_bits, stale_bits};

bool MHeap::InUse(uint32_t slice) const { return TestBit(used_bits, slice); }

SliceAlloc& MHeap::InRegionOf(uint32_t slice) {
  return In(slice >= RegionBegin(Region::kUpper) ? Region::kUpper : Region::kLower);
}

bool MHeap::GrowLocked(Region r, uint32_t count, uint32_t align) {
  if (arena.base == 0) {
    if (!ArenaInitLocked()) return false;
    for (Region each : {Region::kLower, Region::kUpper}) {
      In(each).SetBegin(RegionBegin(each), arena.base >> kSliceShift);
    }
  }
  SliceAlloc& slices = In(r);
  uint32_t end = slices.end();
  // A run that begins in the free tail needs that much less; alignment may cost the difference.
  uint64_t need = align > 1 ? uint64_t{count} + align : count - Min(slices.FreeTail(), count);
  // Where address space is scarce, take it in steps that follow the heap's own size.
  uint64_t step = ArenaIsUnreserved() ? Max(16, Min(kGrowSlices, end / 8))
                  : end == 0          ? kFirstSlices
                                      : kGrowSlices;
  for (uint64_t want : {Max(need, step), Max(need, Min(step, 16)), need}) {
    if (want == 0 || end + want > RegionLimit(r)) continue;
    uint32_t to = static_cast<uint32_t>(end + want);
    if (!ArenaCommitLocked(r, end, to)) continue;
    // The answer of an older kernel without huge pages does not matter.
    plat::AdviseHugePages(SliceAddr(end), want << kSliceShift, r == Region::kUpper);
    slices.Grow(to);
    StoreRelease(&ends_[static_cast<int>(r)], to);  // pairs: end()
    return true;
  }
  return false;
}

// Where address space is scarce, no slice is too black.
uint32_t MHeap::AllocInLocked(Region r, uint32_t count, uint32_t align) {
  bool small = align == 1 && (count == 1 || count == 2 || count == 4);
  if (!small || ArenaIsUnreserved() || !blacklist.any()) return In(r).Alloc(count, align);
  return In(r).AllocAvoiding(count, blacklist);
}

uint32_t MHeap::AllocLocked(uint32_t count, uint32_t align, SpanUse use, Growth growth) {
  bool huge = use == SpanUse::kDense && align == 1 && !ArenaIsUnreserved() &&
              (huge_pages_ == HugePages::kAlways ||
               (huge_pages_ == HugePages::kAuto && UsedLocked() >= kHugeThreshold));
  uint32_t at = kNoSlice;
  // Memory that was used before comes first, then huge pages.
  if (!huge || In(Region::kLower).dirty_free_slices() >= count) {
    at = AllocInLocked(Region::kLower, count, align);
  }
  for (Region r : {huge ? Region::kUpper : Region::kLower, Region::kLower}) {
    if (at == kNoSlice) at = AllocInLocked(r, count, align);
    if (at == kNoSlice && growth == Growth::kYes && GrowLocked(r, count, align)) {
      at = AllocInLocked(r, count, align);
    }
    if (growth == Growth::kNo && huge) break;
  }
  // Where memory has come to its end, a blacklisted slice or the upper region is better than
  // nothing.
  for (Region r : {Region::kLower, Region::kUpper}) {
    if (at == kNoSlice && growth == Growth::kYes) at = In(r).Alloc(count, align);
  }
  if (at == kNoSlice) return at;
  ++spans_allocated_;
  peak_used_ = static_cast<uint32_t>(Max(peak_used_, UsedLocked()));
  return at;
}

void MHeap::RefillReserveLocked(Growth growth) {
  uint64_t old = LoadRelaxed(&reserve_);
  if (static_cast<uint32_t>(old) >= kReserveSlices / 2) return;
  SliceAlloc& slices = In(Region::kLower);
  uint32_t at = slices.Alloc(kReserveSlices, 1);
  if (at == kNoSlice && growth == Growth::kYes && GrowLocked(Region::kLower, kReserveSlices, 1)) {
    at = slices.Alloc(kReserveSlices, 1);
  }
  if (at == kNoSlice) return;
  uint64_t fresh = uint64_t{at} << 32 | kReserveSlices;
  if (CasAcqRel(&reserve_, &old, fresh)) {  // pairs: TakeFromReserve
    if (static_cast<uint32_t>(old) != 0) {
      slices.Free(static_cast<uint32_t>(old >> 32), static_cast<uint32_t>(old), false);
    }
  } else {
    slices.Free(at, kReserveSlices, false);
  }
}

uint32_t MHeap::TakeFromReserve(uint32_t count) {
  uint64_t old = LoadAcquire(&reserve_);  // pairs: RefillReserveLocked
  for (;;) {
    if (static_cast<uint32_t>(old) < count) return kNoSlice;
    uint64_t rest = old + (uint64_t{count} << 32) - count;
    if (CasAcqRel(&reserve_, &old, rest)) return static_cast<uint32_t>(old >> 32);
  }
}

Span* MHeap::AllocSpan(uint32_t slices, uint32_t align_slices, SpanUse use, Growth growth,
                       bool* zeroed) {
  uint32_t at;
  {
    LockScope hold(lock_);
    // Always: a program may go on for long without growing, and its handlers use the reserve up.
    RefillReserveLocked(growth);
    at = AllocLocked(slices, align_slices, use, growth);
    if (at == kNoSlice) return nullptr;
    *zeroed = !InRegionOf(at).IsDirty(at, slices);
    if (*zeroed) fresh_slices_ += slices;
  }
  Span* s = SpanAtSlice(at);
  UNDERGO_ASSERT(s->state == SpanState::kFree && s->owner == nullptr);
  SetSpanSlices(s, slices);
  return s;
}

Span* MHeap::AllocSpanReentrant(uint32_t slices, bool* zeroed) {
  if (thread_words.in_mheap == 0) {
    return AllocSpan(slices, 1, SpanUse::kOther, Growth::kYes, zeroed);
  }
  uint32_t at = TakeFromReserve(slices);
  if (at == kNoSlice) return nullptr;
  *zeroed = false;
  Span* s = SpanAtSlice(at);
  SetSpanSlices(s, slices);
  return s;
}

void MHeap::FreeSpan(Span* s) {
  UNDERGO_ASSERT(s->owner == nullptr);
  StoreRelease(&s->state, SpanState::kFree);  // pairs: FindSpan
  LockScope hold(lock_);
  InRegionOf(SliceOfSpan(s)).Free(SliceOfSpan(s), s->slices, true);
}

bool MHeap::ExtendSpan(Span* s, uint32_t slices, bool* zeroed) {
  UNDERGO_ASSERT(slices > s->slices);
  uint32_t first = SliceOfSpan(s);
  uint32_t more = slices - s->slices;
  {
    LockScope hold(lock_);
    SliceAlloc& region = InRegionOf(first);
    if (!region.AllocAt(first + s->slices, more)) return false;
    *zeroed = !region.IsDirty(first + s->slices, more);
    peak_used_ = static_cast<uint32_t>(Max(peak_used_, UsedLocked()));
  }
  SetSpanSlices(s, slices);
  return true;
}

void MHeap::ShrinkSpan(Span* s, uint32_t slices) {
  UNDERGO_ASSERT(slices < s->slices);
  uint32_t first = SliceOfSpan(s) + slices;
  uint32_t count = s->slices - slices;
  StoreRelease(&s->slices, slices);  // pairs: FindSpan
  // A program that cuts a big object short does it to save memory.
  bool given =
      count >= kShrinkPurgeSlices && plat::Discard(SliceAddr(first), size_t{count} << kSliceShift);
  LockScope hold(lock_);
  SliceAlloc& region = InRegionOf(first);
  if (given) {
    region.SetClean(first, count, false);
    purged_slices_ += count;
  }
  region.Free(first, count, !given);
}

void MHeap::Age(uint64_t now) {
  bool first = next_age_ns_ == 0;
  next_age_ns_ = now + (purge_delay_ns_ << backoff_);
  if (first) return;
  if (purged_round_ != 0 && fresh_slices_ * 2 >= purged_round_) {
    if (backoff_ < kMaxBackoff) ++backoff_;
  } else if (backoff_ > 0) {
    --backoff_;
  }
  purged_round_ = 0;
  fresh_slices_ = 0;
  // What is still marked from the last round is old twice over: this round purges it first.
  for (int r = 0; r < kRegions; ++r) StoreRelaxed(&purge_cursor_[r], 0u);
  StoreRelaxed(&purge_due_, slices_[0].dirty_free_slices() + slices_[1].dirty_free_slices() != 0);
}

// The next run of old slices from `from` on that may be purged.
bool MHeap::NextPurgeLocked(Region r, uint32_t from, uint32_t max, uint32_t* at, uint32_t* count) {
  SliceAlloc& slices = In(r);
  while (slices.FindAged(from, max, at, count)) {
    if (r == Region::kLower) return true;
    *at = static_cast<uint32_t>(AlignDown(*at, kHugeSlices));
    *count = kHugeSlices;
    if (slices.CountAged(*at, *count) == *count) return true;
    from = *at + *count;
  }
  return false;
}

// Slices that are marked as in use meanwhile, without the lock.
void MHeap::GiveBack(Region r, uint32_t at, uint32_t count) {
  size_t bytes = size_t{count} << kSliceShift;
  bool lazily = LoadRelaxed(&lazy_) && plat::DiscardLazily(SliceAddr(at), bytes);
  bool given = lazily || plat::Discard(SliceAddr(at), bytes);
  if (gc_heap.enabled) ArenaDiscardMarks(at, count);
  SliceAlloc& slices = In(r);
  LockScope hold(lock_);
  if (given) {
    slices.SetClean(at, count, lazily);
    purged_slices_ += count;
  }
  slices.Free(at, count, false);
}

// Purges the next run of old slices; false when there is none.
bool MHeap::PurgeStep(Region r, uint32_t* from, uint32_t max_slices) {
  uint32_t at, count;
  SliceAlloc& slices = In(r);
  {
    LockScope hold(lock_);
    if (!NextPurgeLocked(r, *from, max_slices, &at, &count)) return false;
    bool taken = slices.AllocAt(at, count);
    UNDERGO_CHECK(taken);
  }
  GiveBack(r, at, count);
  FetchAddRelaxed(&purged_round_, uint64_t{count});
  *from = at + count;
  return true;
}

void MHeap::PurgeSome() {
  for (int step = 0; step < kPurgeStepsPerTick; ++step) {
    bool more = false;
    for (Region r : {Region::kLower, Region::kUpper}) {
      uint32_t* cursor = &purge_cursor_[static_cast<int>(r)];
      uint32_t from = LoadRelaxed(cursor);
      more |= PurgeStep(r, &from, kPurgeStepSlices);
      StoreRelaxed(cursor, from);
    }
    if (more) continue;
    LockScope hold(lock_);
    for (SliceAlloc& s : slices_) s.AgeAll();
    StoreRelaxed(&purge_due_, false);
    return;
  }
}

void MHeap::Tick() {
  if (LoadRelaxed(&purge_due_)) PurgeSome();
  if (LoadRelaxed(&purge_delay_ns_) == ~uint64_t{0}) return;
  uint64_t now = plat::CoarseNowNs();
  if (now < LoadRelaxed(&next_age_ns_)) return;
  LockScope hold(lock_);
  if (now >= next_age_ns_) Age(now);
}

size_t MHeap::PurgeAll() {
  uint64_t before;
  {
    LockScope hold(lock_);
    for (SliceAlloc& s : slices_) s.AgeAll();
    before = purged_slices_;
  }
  for (Region r : {Region::kLower, Region::kUpper}) {
    uint32_t from = 0;
    while (PurgeStep(r, &from, kGrowSlices)) {
    }
  }
  LockScope hold(lock_);
  return (purged_slices_ - before) << kSliceShift;
}

// The last run of free slices below *to; false when there is none.
bool MHeap::ScavengeStep(Region r, uint32_t* to, uint32_t max_slices, uint32_t* released) {
  uint32_t at, count;
  SliceAlloc& slices = In(r);
  {
    LockScope hold(lock_);
    if (!slices.FindDirtyBelow(*to, max_slices, &at, &count)) return false;
    if (r == Region::kUpper) {
      // Whole huge pages or nothing.
      at = static_cast<uint32_t>(AlignDown(at + count - 1, kHugeSlices));
      count = kHugeSlices;
      *to = at;
      if (slices.CountDirtyFree(at, count) != count) return true;
    }
    *to = at;
    bool taken = slices.AllocAt(at, count);
    UNDERGO_CHECK(taken);
  }
  GiveBack(r, at, count);
  *released += count;
  return true;
}

size_t MHeap::Scavenge(size_t bytes) {
  uint32_t wanted = static_cast<uint32_t>(Min((bytes + kSliceSize - 1) >> kSliceShift, kMaxSlices));
  uint32_t released = 0;
  for (Region r : {Region::kUpper, Region::kLower}) {
    uint32_t to = kNoSlice;
    while (released < wanted &&
           ScavengeStep(r, &to, Min(wanted - released, kPurgeStepSlices), &released)) {
    }
  }
  return size_t{released} << kSliceShift;
}

void MHeap::SetHugePages(HugePages mode) {
  LockScope hold(lock_);
  huge_pages_ = mode;
}

void MHeap::SetPurgeDelay(uint64_t ns) {
  LockScope hold(lock_);
  purge_delay_ns_ = ns;
  backoff_ = 0;
  next_age_ns_ = 0;
}

void MHeap::ReleaseReservation() {
  LockScope hold(lock_);
  if (arena.base != 0) ArenaReleaseReservationLocked();
}

MHeapStats MHeap::stats() {
  LockScope hold(lock_);
  MHeapStats r{};
  for (SliceAlloc& s : slices_) {
    r.committed_bytes += uint64_t{s.end() - s.begin()} << kSliceShift;
    r.dirty_free_bytes += uint64_t{s.dirty_free_slices()} << kSliceShift;
  }
  r.in_use_bytes = uint64_t{UsedLocked() - static_cast<uint32_t>(reserve_)} << kSliceShift;
  r.purged_bytes = purged_slices_ << kSliceShift;
  r.spans_allocated = spans_allocated_;
  uint32_t reserved = static_cast<uint32_t>(Min(peak_used_, static_cast<uint32_t>(reserve_)));
  r.peak_in_use_bytes = Max(uint64_t{peak_used_ - reserved} << kSliceShift, r.in_use_bytes);
  return r;
}

}  // namespace undergo::heap
