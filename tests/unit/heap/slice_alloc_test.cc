// SPDX-License-Identifier: Apache-2.0
// The slice allocator against a model of one byte for each slice.

#include "heap/slice_alloc.h"

#include <criterion/criterion.h>

#include <vector>

#include "check.h"
#include "heap/slice_alloc.h"

using namespace undergo;
using heap::SliceAlloc;

namespace {

constexpr uint32_t kCapacity = 1024;

struct Slice {
  bool used, dirty, aged;
};

struct Run {
  uint32_t at, count;
};

// Both allocators and how they are compared.
struct Pair {
  uint64_t used[kCapacity / 64] = {}, dirty[kCapacity / 64] = {}, aged[kCapacity / 64] = {};
  uint64_t stale[kCapacity / 64] = {};
  SliceAlloc real{used, dirty, aged, stale};
  std::vector<Slice> model = std::vector<Slice>(kCapacity);
  uint32_t begin, end;
  uint64_t phase;
  std::vector<Run> runs;

  Pair(uint32_t from, uint64_t shift) : begin(from), end(from), phase(shift) {
    real.SetBegin(from, shift);
  }

  void Grow(uint32_t to) {
    end = to;
    real.Grow(to);
  }

  bool IsFree(uint32_t at, uint32_t count) const {
    if (at + count > end) return false;
    for (uint32_t i = at; i < at + count; ++i) {
      if (model[i].used) return false;
    }
    return true;
  }

  uint32_t FirstFit(uint32_t count, uint32_t align) const {
    for (uint32_t at = begin; at + count <= end; ++at) {
      if ((at + phase) % align == 0 && IsFree(at, count)) return at;
    }
    return SliceAlloc::kNone;
  }

  void Mark(uint32_t at, uint32_t count) {
    for (uint32_t i = at; i < at + count; ++i) {
      model[i].used = true;
      model[i].aged = false;
    }
    runs.push_back({at, count});
  }

  void Alloc(uint32_t count, uint32_t align) {
    uint32_t expected = FirstFit(count, align);
    uint32_t at = real.Alloc(count, align);
    cr_assert(at == expected, "%u slices aligned to %u: at %u, wanted %u", count, align, at,
              expected);
    if (at != SliceAlloc::kNone) Mark(at, count);
  }

  void AllocAt(uint32_t at, uint32_t count) {
    bool expected = IsFree(at, count);
    cr_assert(real.AllocAt(at, count) == expected, "%u slices at %u", count, at);
    if (expected) Mark(at, count);
  }

  void Free(size_t index, bool is_dirty, uint32_t keep) {
    Run& run = runs[index];
    keep = static_cast<uint32_t>(Min(keep, run.count));
    for (uint32_t i = run.at + keep; i < run.at + run.count; ++i) {
      model[i].used = false;
      model[i].dirty |= is_dirty;
    }
    if (keep < run.count) real.Free(run.at + keep, run.count - keep, is_dirty);
    run.count = keep;
    if (keep != 0) return;
    runs[index] = runs.back();
    runs.pop_back();
  }

  void SetClean(size_t index) {
    Run run = runs[index];
    for (uint32_t i = run.at; i < run.at + run.count; ++i) model[i].dirty = false;
    real.SetClean(run.at, run.count, false);
  }

  void AgeAll() {
    for (Slice& s : model) s.aged = !s.used && s.dirty;
    real.AgeAll();
  }

  void Compare(Random* random) {
    uint32_t used_count = 0, dirty_free = 0, tail = 0;
    for (uint32_t i = begin; i < end; ++i) {
      used_count += model[i].used;
      dirty_free += !model[i].used && model[i].dirty;
      tail = model[i].used ? 0 : tail + 1;
    }
    cr_assert(real.used_slices() == used_count);
    cr_assert(real.dirty_free_slices() == dirty_free, "%u dirty, wanted %u",
              real.dirty_free_slices(), dirty_free);
    cr_assert(real.FreeTail() == tail, "tail of %u, wanted %u", real.FreeTail(), tail);
    if (end == begin) return;
    uint32_t from = begin + static_cast<uint32_t>(Below(random, end - begin));
    uint32_t count = static_cast<uint32_t>(Below(random, end - from + 1));
    uint32_t aged_count = 0, first = from;
    bool any_dirty = false;
    for (uint32_t i = from; i < from + count; ++i) {
      any_dirty |= model[i].dirty;
      aged_count += model[i].aged;
    }
    cr_assert(real.IsDirty(from, count) == any_dirty);
    cr_assert(real.CountAged(from, count) == aged_count);
    uint32_t at, length, most = 1 + static_cast<uint32_t>(Below(random, 20)), stop;
    while (first < end && !model[first].aged) ++first;
    for (stop = first; stop < end && stop - first < most && model[stop].aged;) ++stop;
    bool found = real.FindAged(from, most, &at, &length);
    cr_assert(found == (first < end));
    if (found) cr_assert(at == first && length == stop - first, "%u+%u", at, length);
  }
};

void Run1000Steps(uint64_t seed, uint32_t begin, uint64_t phase) {
  Random random = {seed};
  Pair pair(begin, phase);
  bool crowded = seed % 2 == 0;
  for (int step = 0; step < 1000; ++step) {
    size_t dice = Below(&random, 100);
    uint32_t large = Below(&random, 8) == 0 ? 100 : 9;
    uint32_t count = 1 + static_cast<uint32_t>(Below(&random, large));
    if (dice < (crowded ? 55u : 40u)) {
      uint32_t align = Below(&random, 3) != 0 ? 1 : 1u << Below(&random, 7);
      pair.Alloc(count, align);
    } else if (dice < 60) {
      uint32_t room = pair.end - pair.begin;
      pair.AllocAt(pair.begin + static_cast<uint32_t>(Below(&random, room + 10)), count);
    } else if (dice < 90 && !pair.runs.empty()) {
      size_t index = Below(&random, pair.runs.size());
      if (Below(&random, 5) == 0) pair.SetClean(index);
      uint32_t keep = Below(&random, 4) == 0 ? static_cast<uint32_t>(Below(&random, 10)) : 0;
      pair.Free(index, Below(&random, 3) != 0, keep);
    } else if (dice < 94) {
      pair.AgeAll();
    } else if (dice >= 96 && pair.end < kCapacity) {
      uint32_t more = 1 + static_cast<uint32_t>(Below(&random, 90));
      pair.Grow(static_cast<uint32_t>(Min(kCapacity, pair.end + more)));
    }
    pair.Compare(&random);
  }
}

}  // namespace

Test(slice_alloc, random_against_the_model) {
  for (uint64_t seed = 1; seed <= 60; ++seed) Run1000Steps(seed, 0, 0);
}

Test(slice_alloc, random_with_a_begin_and_a_phase) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Run1000Steps(seed, 1 + static_cast<uint32_t>(seed * 37 % 300), seed * 13);
  }
}

// Hints remember where short runs end: a free that joins neighbours must take that back.
Test(slice_alloc, freed_neighbours_become_one_run) {
  Pair pair(0, 0);
  pair.Grow(256);
  for (int i = 0; i < 64; ++i) pair.Alloc(4, 1);
  cr_expect(pair.real.Alloc(1, 1) == SliceAlloc::kNone);
  // Runs lie in `runs` in the order of their addresses.
  pair.real.Free(40, 4, true);
  pair.real.Free(48, 4, true);
  cr_expect(pair.real.Alloc(8, 1) == SliceAlloc::kNone);
  cr_expect(pair.real.Alloc(12, 1) == SliceAlloc::kNone);
  pair.real.Free(44, 4, false);
  cr_expect(pair.real.Alloc(12, 1) == 40);
}
