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
// Rejected: MADV_FREE (the memory stays in the resident set that operators look at), purging by
// size of the free run (it purges the working set of programs with large blocks), a time stamp for
// each slice (eight bytes for each, and a scan to use them).
#include "heap/mheap.h"

#include "base/assert.h"
#include "plat/clock.h"
#include "plat/vm.h"

namespace undergo::heap {

namespace {

constexpr uint32_t kGrowSlices = 64 * kMiB / kSliceSize;
constexpr uint32_t kReserveSlices = 64;
constexpr uint32_t kPurgeStepSlices = 64;   // 4 MiB outside the lock at a time
constexpr int kPurgeStepsPerTick = 4;
constexpr uint32_t kMaxBackoff = 3;

constinit uint64_t used_bits[kMaxSlices / 64] = {};
constinit uint64_t dirty_bits[kMaxSlices / 64] = {};
constinit uint64_t aged_bits[kMaxSlices / 64] = {};

}  // namespace

constinit MHeap mheap{used_bits, dirty_bits, aged_bits};

bool MHeap::InUse(uint32_t slice) const { return TestBit(used_bits, slice); }

bool MHeap::GrowLocked(uint32_t count, uint32_t align) {
  if (!ArenaInitLocked()) return false;
  uint32_t tail = slices_.FreeTail();
  // A run that begins in the free tail needs that much less; alignment may cost the difference.
  uint64_t need = align > 1 ? uint64_t{count} + align : count - Min(tail, count);
  // Where address space is scarce, take it in steps that follow the heap's own size.
  uint64_t step = ArenaIsUnreserved() ? Max(16, Min(kGrowSlices, end_ / 8)) : kGrowSlices;
  for (uint64_t want : {Max(need, step), Max(need, Min(step, 16)), need}) {
    if (want == 0 || end_ + want > ArenaCapacity()) continue;
    uint32_t to = static_cast<uint32_t>(end_ + want);
    if (ArenaCommitLocked(end_, to)) {
      slices_.Grow(to);
      StoreRelease(&end_, to);  // pairs: end()
      return true;
    }
  }
  return false;
}

uint32_t MHeap::AllocLocked(uint32_t count, uint32_t align) {
  uint32_t at = slices_.Alloc(count, align);
  if (at == kNoSlice && GrowLocked(count, align)) at = slices_.Alloc(count, align);
  if (at == kNoSlice) return at;
  ++spans_allocated_;
  peak_used_ = static_cast<uint32_t>(Max(peak_used_, slices_.used_slices()));
  return at;
}

void MHeap::RefillReserveLocked() {
  uint64_t old = LoadRelaxed(&reserve_);
  if (static_cast<uint32_t>(old) >= kReserveSlices / 2) return;
  uint32_t at = slices_.Alloc(kReserveSlices, 1);
  if (at == kNoSlice) return;
  uint64_t fresh = uint64_t{at} << 32 | kReserveSlices;
  if (CasAcqRel(&reserve_, &old, fresh)) {  // pairs: TakeFromReserve
    if (static_cast<uint32_t>(old) != 0) {
      slices_.Free(static_cast<uint32_t>(old >> 32), static_cast<uint32_t>(old), false);
    }
  } else {
    slices_.Free(at, kReserveSlices, false);
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

Span* MHeap::AllocSpan(uint32_t slices, uint32_t align_slices, bool* zeroed) {
  uint32_t at;
  {
    sync::MutexLock hold(lock_);
    at = AllocLocked(slices, align_slices);
    if (at == kNoSlice) return nullptr;
    *zeroed = !slices_.IsDirty(at, slices);
    if (*zeroed) fresh_slices_ += slices;
    RefillReserveLocked();
  }
  Span* s = SpanAtSlice(at);
  UNDERGO_ASSERT(s->state == SpanState::kFree && s->owner == nullptr);
  SetSpanSlices(s, slices);
  return s;
}

Span* MHeap::AllocSpanReentrant(uint32_t slices, bool* zeroed) {
  uint32_t at = kNoSlice;
  if (lock_.TryLock()) {
    at = AllocLocked(slices, 1);
    if (at != kNoSlice) *zeroed = !slices_.IsDirty(at, slices);
    lock_.Unlock();
  } else {
    at = TakeFromReserve(slices);
    *zeroed = false;
  }
  if (at == kNoSlice) return nullptr;
  Span* s = SpanAtSlice(at);
  SetSpanSlices(s, slices);
  return s;
}

void MHeap::FreeSpan(Span* s) {
  UNDERGO_ASSERT(s->owner == nullptr);
  StoreRelease(&s->state, SpanState::kFree);  // pairs: FindSpan
  sync::MutexLock hold(lock_);
  slices_.Free(SliceOfSpan(s), s->slices, true);
}

bool MHeap::ExtendSpan(Span* s, uint32_t slices, bool* zeroed) {
  UNDERGO_ASSERT(slices > s->slices);
  uint32_t first = SliceOfSpan(s);
  uint32_t more = slices - s->slices;
  {
    sync::MutexLock hold(lock_);
    if (!slices_.AllocAt(first + s->slices, more)) return false;
    *zeroed = !slices_.IsDirty(first + s->slices, more);
    peak_used_ = static_cast<uint32_t>(Max(peak_used_, slices_.used_slices()));
  }
  SetSpanSlices(s, slices);
  return true;
}

void MHeap::ShrinkSpan(Span* s, uint32_t slices) {
  UNDERGO_ASSERT(slices < s->slices);
  uint32_t old = s->slices;
  StoreRelease(&s->slices, slices);  // pairs: FindSpan
  sync::MutexLock hold(lock_);
  slices_.Free(SliceOfSpan(s) + slices, old - slices, true);
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
  purge_cursor_ = 0;
  purge_due_ = slices_.dirty_free_slices() != 0;
}

// Purges the next run of old slices; false when there is none.
bool MHeap::PurgeStep(uint32_t* from, uint32_t max_slices) {
  uint32_t at, count;
  {
    sync::MutexLock hold(lock_);
    if (!slices_.FindAged(*from, max_slices, &at, &count)) return false;
    bool taken = slices_.AllocAt(at, count);
    UNDERGO_CHECK(taken);
  }
  bool given = plat::Discard(SliceAddr(at), size_t{count} << kSliceShift);
  sync::MutexLock hold(lock_);
  if (given) {
    slices_.SetClean(at, count);
    purged_slices_ += count;
    purged_round_ += count;
  }
  slices_.Free(at, count, false);
  *from = at + count;
  return true;
}

void MHeap::Tick() {
  uint64_t now = plat::CoarseNowNs();
  if (LoadRelaxed(&purge_due_)) {
    for (int i = 0; i < kPurgeStepsPerTick; ++i) {
      uint32_t from = LoadRelaxed(&purge_cursor_);
      bool more = PurgeStep(&from, kPurgeStepSlices);
      StoreRelaxed(&purge_cursor_, from);
      if (!more) {
        sync::MutexLock hold(lock_);
        slices_.AgeAll();
        StoreRelaxed(&purge_due_, false);
        break;
      }
    }
  }
  if (now < LoadRelaxed(&next_age_ns_) || LoadRelaxed(&purge_delay_ns_) == ~uint64_t{0}) return;
  sync::MutexLock hold(lock_);
  if (now >= next_age_ns_) Age(now);
}

size_t MHeap::PurgeAll() {
  {
    sync::MutexLock hold(lock_);
    slices_.AgeAll();
  }
  uint64_t before = purged_slices_;
  uint32_t from = 0;
  while (PurgeStep(&from, kGrowSlices)) {
  }
  return (purged_slices_ - before) << kSliceShift;
}

void MHeap::SetPurgeDelay(uint64_t ns) {
  sync::MutexLock hold(lock_);
  purge_delay_ns_ = ns;
  backoff_ = 0;
  next_age_ns_ = 0;
}

void MHeap::ReleaseReservation() {
  sync::MutexLock hold(lock_);
  if (arena.base != 0) ArenaReleaseReservationLocked(end_);
}

MHeapStats MHeap::stats() {
  sync::MutexLock hold(lock_);
  MHeapStats r{};
  r.committed_bytes = uint64_t{end_} << kSliceShift;
  r.in_use_bytes = (uint64_t{slices_.used_slices()} - static_cast<uint32_t>(reserve_))
                   << kSliceShift;
  r.dirty_free_bytes = uint64_t{slices_.dirty_free_slices()} << kSliceShift;
  r.purged_bytes = purged_slices_ << kSliceShift;
  r.spans_allocated = spans_allocated_;
  r.peak_in_use_bytes = uint64_t{peak_used_} << kSliceShift;
  return r;
}

}  // namespace undergo::heap
