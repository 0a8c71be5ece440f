// SPDX-License-Identifier: Apache-2.0
// The page heap: no slice in two spans, memory said to be zero is zero, memory is given back when
// it should be, refusals by the system do no lasting harm.

#include "heap/mheap.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include <map>

#include "plat/vm.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

struct Held {
  uint32_t slices;
  uint64_t tag;  // 0: never written to
};
std::map<Span*, Held> spans;

Span* New(uint32_t slices, uint32_t align = 1, bool* zeroed_out = nullptr) {
  BusyScope busy;
  bool zeroed = false;
  Span* s = mheap.AllocSpan(slices, align, SpanUse::kOther, Growth::kYes, &zeroed);
  if (s == nullptr) return nullptr;
  s->slots = 1;
  s->state = SpanState::kLarge;
  if (zeroed_out != nullptr) *zeroed_out = zeroed;
  return s;
}

void Drop(Span* s) {
  BusyScope busy;
  mheap.FreeSpan(s);
}

char* Memory(const Span* s) { return reinterpret_cast<char*>(SpanAddr(s)); }

void Tick() {
  BusyScope busy;
  mheap.Tick();
}

// First and last bytes of each slice carry the tag: cheap, and overlap shows.
void Write(Span* s, uint64_t tag) {
  for (uint32_t i = 0; i < s->slices; ++i) {
    Fill(Memory(s) + i * kSliceSize, 64, tag + i);
    Fill(Memory(s) + (i + 1) * kSliceSize - 64, 64, tag + i);
  }
}

void Check(Span* s, uint64_t tag, uint32_t slices) {
  for (uint32_t i = 0; tag != 0 && i < slices; ++i) {
    cr_assert(Verify(Memory(s) + i * kSliceSize, 64, tag + i) == 64, "slice %u", i);
    cr_assert(Verify(Memory(s) + (i + 1) * kSliceSize - 64, 64, tag + i) == 64, "slice %u", i);
  }
}

size_t ResidentPages(const void* p, size_t bytes) {
  std::vector<unsigned char> resident(bytes / kOsPageSize);
  cr_assert(mincore(const_cast<void*>(p), bytes, resident.data()) == 0);
  size_t n = 0;
  for (unsigned char r : resident) n += r & 1;
  return n;
}

bool refuse;
bool Refuse() { return refuse; }

}  // namespace

TestSuite(mheap, .timeout = 60);

Test(mheap, random_spans) {
  Random random = {3};
  uint64_t next_tag = 1;
  uint64_t in_use = 0;
  for (int step = 0; step < 3000; ++step) {
    size_t dice = Below(&random, 100);
    auto it = spans.begin();
    if (!spans.empty()) std::advance(it, Below(&random, spans.size()));
    if (dice < 45 || spans.empty()) {
      uint32_t slices = 1 + static_cast<uint32_t>(Below(&random, Below(&random, 10) == 0 ? 60 : 5));
      uint32_t align = Below(&random, 4) == 0 ? 1u << Below(&random, 6) : 1;
      bool zeroed;
      Span* s = New(slices, align, &zeroed);
      cr_assert(s != nullptr && s->slices == slices);
      cr_assert(SpanAddr(s) % (align * kSliceSize) == 0, "alignment %u", align);
      cr_assert(not(zeroed) || IsZero(Memory(s), slices * kSliceSize), "not zero");
      uint64_t tag = Below(&random, 3) == 0 ? 0 : (next_tag += 100);
      if (tag != 0) Write(s, tag);
      cr_assert(spans.insert({s, {slices, tag}}).second);
      in_use += slices;
    } else if (dice < 85) {
      Check(it->first, it->second.tag, it->second.slices);
      in_use -= it->second.slices;
      Drop(it->first);
      spans.erase(it);
    } else if (dice < 92) {
      BusyScope busy;
      Span* s = it->first;
      uint32_t more = it->second.slices + 1 + static_cast<uint32_t>(Below(&random, 8));
      bool zeroed = false;
      if (mheap.ExtendSpan(s, more, &zeroed)) {
        uint32_t old = it->second.slices;
        cr_assert(s->slices == more);
        cr_assert(not(zeroed) || IsZero(Memory(s) + old * kSliceSize, (more - old) * kSliceSize));
        Check(s, it->second.tag, old);
        in_use += more - old;
        it->second = {more, next_tag += 100};
        Write(s, next_tag);
      }
    } else if (dice < 97 && it->second.slices > 1) {
      BusyScope busy;
      uint32_t less = 1 + static_cast<uint32_t>(Below(&random, it->second.slices - 1));
      mheap.ShrinkSpan(it->first, less);
      in_use -= it->second.slices - less;
      it->second.slices = less;
      Check(it->first, it->second.tag, less);
    } else if (dice == 98) {
      BusyScope busy;
      mheap.PurgeAll();
      cr_assert(mheap.stats().dirty_free_bytes == 0);
    }
    cr_assert(InUse() == in_use << kSliceShift, "%zu in use, wanted %zu", InUse(),
              in_use << kSliceShift);
  }
  for (auto& [s, held] : spans) {
    Check(s, held.tag, held.slices);
    for (uint32_t i = 0; i < held.slices; ++i) cr_assert(mheap.InUse(SliceOfSpan(s) + i));
    Drop(s);
    cr_assert(not(mheap.InUse(SliceOfSpan(s))));
  }
  cr_expect(InUse() == 0);
}

Test(mheap, purge_all_gives_memory_back) {
  constexpr uint32_t kSlices = 300;
  Span* s = New(kSlices);
  Span* stays = New(1);
  memset(Memory(s), 1, kSlices * kSliceSize);
  memset(Memory(stays), 2, kSliceSize);
  Drop(s);
  uint64_t purged = mheap.stats().purged_bytes;
  cr_expect(mheap.stats().dirty_free_bytes >= kSlices * kSliceSize);
  cr_expect(ResidentPages(Memory(s), kSlices * kSliceSize) == kSlices * 16, "before");
  size_t given;
  {
    BusyScope busy;
    given = mheap.PurgeAll();
  }
  cr_expect(given >= kSlices * kSliceSize);
  cr_expect(mheap.stats().purged_bytes == purged + given);
  cr_expect(mheap.stats().dirty_free_bytes == 0);
  cr_expect(ResidentPages(Memory(s), kSlices * kSliceSize) == 0, "still resident");
  cr_expect(ResidentPages(Memory(stays), kSliceSize) == 16 && Memory(stays)[kSliceSize - 1] == 2);
  bool zeroed = false;
  Span* again = New(kSlices, 1, &zeroed);
  cr_expect(again == s && zeroed && IsZero(Memory(again), kSlices * kSliceSize));
}

Test(mheap, memory_that_was_used_is_not_said_to_be_zero) {
  bool zeroed = false;
  Span* s = New(4, 1, &zeroed);
  cr_expect(zeroed);
  memset(Memory(s), 9, 4 * kSliceSize);
  Drop(s);
  Span* again = New(2, 1, &zeroed);
  cr_expect(again == s && not(zeroed));
  BusyScope busy;
  cr_assert(mheap.ExtendSpan(again, 4, &zeroed));
  cr_expect(not(zeroed));
}

Test(mheap, purges_by_itself_after_the_delay) {
  mheap.SetPurgeDelay(60 * 1000000);
  Span* s = New(100);
  memset(Memory(s), 1, 100 * kSliceSize);
  Drop(s);
  Tick();
  cr_expect(mheap.stats().purged_bytes == 0, "too early");
  double start = Seconds();
  while (mheap.stats().dirty_free_bytes != 0 && Seconds() - start < 10) {
    SleepMs(5);
    Tick();
    if (Seconds() - start < 0.05) cr_assert(mheap.stats().purged_bytes == 0, "too early");
  }
  cr_expect(mheap.stats().dirty_free_bytes == 0, "still there after %.1f s", Seconds() - start);
  cr_expect(ResidentPages(Memory(s), 100 * kSliceSize) == 0);
  cr_expect(Seconds() - start < 2, "%.1f s", Seconds() - start);
}

Test(mheap, memory_in_use_again_is_not_purged) {
  mheap.SetPurgeDelay(20 * 1000000);
  Span* s = New(64);
  double start = Seconds();
  for (uint64_t tag = 1; Seconds() - start < 0.4; ++tag) {
    Write(s, tag);
    Tick();
    SleepMs(3);
    Tick();
    Check(s, tag, 64);
    Drop(s);
    cr_assert(New(64) == s);
  }
  cr_expect(mheap.stats().purged_bytes == 0, "%zu purged", mheap.stats().purged_bytes);
}

Test(mheap, no_delay_purges_within_a_few_ticks) {
  mheap.SetPurgeDelay(0);
  Span* s = New(64);
  memset(Memory(s), 1, 64 * kSliceSize);
  Drop(s);
  for (int i = 0; i < 8; ++i) {
    Tick();
    SleepMs(5);
  }
  cr_expect(mheap.stats().dirty_free_bytes == 0);
  cr_expect(ResidentPages(Memory(s), 64 * kSliceSize) == 0);
}

Test(mheap, never_purges_when_told_so) {
  mheap.SetPurgeDelay(~uint64_t{0});
  Span* s = New(64);
  memset(Memory(s), 1, 64 * kSliceSize);
  Drop(s);
  for (int i = 0; i < 20; ++i) {
    Tick();
    SleepMs(5);
  }
  cr_expect(mheap.stats().purged_bytes == 0);
  cr_expect(ResidentPages(Memory(s), 64 * kSliceSize) == 64 * 16);
}

Test(mheap, huge_pages_for_dense_spans_only) {
  mheap.SetHugePages(HugePages::kOff);
  bool zeroed;
  BusyScope busy;
  for (int i = 0; i < 3000; ++i) {
    Span* s = mheap.AllocSpan(1, 1, SpanUse::kDense, Growth::kYes, &zeroed);
    cr_assert(SliceOfSpan(s) < RegionLimit(Region::kLower));
  }
  mheap.SetHugePages(HugePages::kAlways);
  int upper = 0;
  for (int i = 0; i < 3000; ++i) {
    Span* s = mheap.AllocSpan(1, 1, SpanUse::kDense, Growth::kYes, &zeroed);
    upper += SliceOfSpan(s) >= RegionBegin(Region::kUpper);
    s = mheap.AllocSpan(1, 1, SpanUse::kOther, Growth::kYes, &zeroed);
    cr_assert(SliceOfSpan(s) < RegionLimit(Region::kLower));
  }
  cr_expect(upper > 0);
}

Test(mheap, refused_from_the_start_and_granted_later) {
  plat::vm_failure_hook = Refuse;
  refuse = true;
  for (int i = 0; i < 3; ++i) cr_expect(New(1) == nullptr);
  cr_expect(InUse() == 0);
  refuse = false;
  Span* s = New(3);
  cr_assert(s != nullptr);
  Write(s, 5);
  Check(s, 5, 3);
  Drop(s);
  cr_expect(InUse() == 0);
}

Test(mheap, refused_growth_and_granted_later) {
  Span* first = New(10);
  Write(first, 1);
  plat::vm_failure_hook = Refuse;
  refuse = true;
  // What is committed serves on; then there is none.
  std::vector<Span*> got;
  for (Span* s; (s = New(7)) != nullptr;) got.push_back(s);
  cr_expect(got.size() > 10 && got.size() < 200, "%zu", got.size());
  cr_expect(New(5000) == nullptr);
  cr_expect(New(2, 1024) == nullptr);
  uint64_t in_use = InUse();
  Drop(got[4]);
  cr_expect(New(7) == got[4], "what was freed serves again");
  cr_expect(InUse() == in_use);
  refuse = false;
  Span* large = New(5000);
  cr_assert(large != nullptr);
  Write(large, 77);
  Check(first, 1, 10);
  Check(large, 77, 5000);
}

Test(mheap, more_than_the_range_is_refused) {
  cr_expect(New(kMaxSlices) == nullptr);
  cr_expect(New(kMaxSlices - 1, 1024) == nullptr);
  cr_expect(New(1) != nullptr);
}

// A handler that interrupts the page heap of its own thread is served from the reserve.
Test(mheap, reserve_for_callers_inside_the_heap) {
  Span* first = New(1);
  cr_assert(first != nullptr);
  std::map<uint32_t, uint32_t> taken;
  for (int round = 0; round < 3; ++round) {
    BusyScope busy;
    mheap.lock().Lock();
    thread_words.in_mheap = 1;
    uint32_t total = 0;
    bool zeroed;
    for (uint32_t count = 1; total < 25; count = count % 4 + 1) {
      Span* s = mheap.AllocSpanReentrant(count, &zeroed);
      cr_assert(s != nullptr, "round %d, after %u slices", round, total);
      cr_assert(s->slices == count);
      for (uint32_t i = 0; i < count; ++i) cr_assert(taken.insert({SliceOfSpan(s) + i, 1}).second);
      memset(Memory(s), 1, count * kSliceSize);
      s->slots = 1;
      s->state = SpanState::kLarge;
      total += count;
    }
    cr_expect(mheap.AllocSpanReentrant(1000, &zeroed) == nullptr);
    thread_words.in_mheap = 0;
    mheap.lock().Unlock();
    // The next ordinary allocation fills the reserve up again.
    Span* s = New(1);
    cr_assert(s != nullptr && taken.count(SliceOfSpan(s)) == 0);
  }
  cr_expect(InUse() == (taken.size() + 4) << kSliceShift);
}

// A heap that does not grow any more still fills the reserve up: handlers go on using it.
Test(mheap, reserve_refills_without_growth) {
  bool zeroed;
  Span* room = New(200);
  Drop(room);
  for (int i = 0; i < 100; ++i) {
    Span* s = mheap.AllocSpan(1, 1, SpanUse::kOther, Growth::kNo, &zeroed);
    cr_assert(s != nullptr);
    Drop(s);
    mheap.lock().Lock();
    thread_words.in_mheap = 1;
    Span* late = mheap.AllocSpanReentrant(3, &zeroed);
    thread_words.in_mheap = 0;
    mheap.lock().Unlock();
    cr_assert(late != nullptr, "round %d", i);
    Drop(late);
  }
}

Test(mheap, statistics) {
  MHeapStats before = mheap.stats();
  cr_expect(before.committed_bytes == 0 && before.in_use_bytes == 0 && before.spans_allocated == 0);
  Span* a = New(10);
  Span* b = New(20);
  Drop(a);
  MHeapStats after = mheap.stats();
  cr_expect(after.spans_allocated == 2);
  cr_expect(after.in_use_bytes == 20 * kSliceSize);
  cr_expect(after.peak_in_use_bytes >= 30 * kSliceSize);
  cr_expect(after.dirty_free_bytes == 10 * kSliceSize);
  cr_expect(after.committed_bytes >= 30 * kSliceSize);
  Drop(b);
}

// The scavenger does not wait for pages to age, and takes the highest addresses first.
Test(mheap, scavenge) {
  Span* low = New(40);
  Span* between = New(1);
  Span* high = New(40);
  Write(low, 1);
  Write(high, 2);
  Drop(low);
  Drop(high);
  BusyScope busy;
  const uint64_t dirty = mheap.stats().dirty_free_bytes;
  cr_assert(dirty >= 80 * kSliceSize);
  cr_expect(mheap.Scavenge(10 * kSliceSize) == 10 * kSliceSize);
  cr_expect(mheap.stats().dirty_free_bytes == dirty - 10 * kSliceSize);
  cr_expect(ResidentPages(Memory(high) + 30 * kSliceSize, 10 * kSliceSize) == 0);
  cr_expect(ResidentPages(Memory(high), 30 * kSliceSize) == 30 * 2);  // as Write does
  cr_expect(mheap.Scavenge(~size_t{0} >> 1) == dirty - 10 * kSliceSize);
  cr_expect(ResidentPages(Memory(low), 40 * kSliceSize) == 0);
  cr_expect(mheap.stats().dirty_free_bytes == 0 && mheap.Scavenge(1) == 0);
  mheap.FreeSpan(between);
}

// MADV_FREE: the memory is not ours any more, but nobody may take it for zeroed.
Test(mheap, lazy_release) {
  mheap.SetLazyRelease();
  bool zeroed = false;
  Span* s = New(20, 1, &zeroed);
  Write(s, 1);
  Drop(s);
  {
    BusyScope busy;
    cr_assert(mheap.PurgeAll() >= 20 * kSliceSize);
    cr_expect(mheap.stats().dirty_free_bytes == 0);
  }
  Span* again = New(20, 1, &zeroed);
  cr_expect(again == s && !zeroed);
  Write(again, 3);
  Check(again, 3, 20);
}
