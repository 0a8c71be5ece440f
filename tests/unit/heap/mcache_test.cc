// SPDX-License-Identifier: Apache-2.0
// The per-thread caches: whole spans of every class, what comes back and when, frees by others.

#include "heap/mcache.h"

#include <criterion/criterion.h>

#include <atomic>

#include "heap/walk.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

std::vector<Block> Fill3Spans(size_t size, uint64_t tag) {
  size_t count = 3 * size_t{kClasses[ClassOf(size)].slots} + 1;
  if (count > 4000) count = 4000;
  std::vector<Block> blocks;
  for (size_t i = 0; i < count; ++i) blocks.push_back(NewBlock(size, tag + i));
  return blocks;
}

void Flush() {
  BusyScope busy;
  MCache* mc = thread_words.mcache;
  sync::MutexLock hold(mc->lock);
  FlushLocked(mc);
}

}  // namespace

TestSuite(mcache, .timeout = 60);

// Patterns show when two objects overlap.
Test(mcache, each_class_filled_and_emptied) {
  Free(Malloc(16));
  Flush();
  cr_assert(InUse() == 0);
  for (size_t size : SizesOfEachClass()) {
    std::vector<Block> blocks = Fill3Spans(size, size);
    cr_assert(InUse() >= blocks.size() * size);
    uint64_t peak = InUse();
    DropBlocks(&blocks);
    // All but the current span and the spares went back by the last free of each span.
    const SizeClass& c = kClasses[ClassOf(size)];
    cr_expect(InUse() <= (c.slices + kSpareSlices) * kSliceSize, "size %zu: %zu of %zu bytes", size,
              InUse(), peak);
    Flush();
    cr_assert(InUse() == 0, "size %zu: %zu bytes in spans", size, InUse());
  }
}

Test(mcache, all_classes_at_once_in_random_order) {
  Random random = {11};
  std::vector<Block> blocks;
  for (int step = 0; step < 60000; ++step) {
    if (blocks.empty() || Below(&random, 100) < (step < 20000 ? 60 : 47)) {
      const SizeClass& c = kClasses[Below(&random, Below(&random, 8) == 0 ? kNumClasses : 30)];
      blocks.push_back(NewBlock(c.size - Below(&random, 16), static_cast<uint64_t>(step)));
    } else {
      size_t i = Below(&random, blocks.size());
      DropBlock(blocks[i]);
      blocks[i] = blocks.back();
      blocks.pop_back();
    }
  }
  DropBlocks(&blocks);
  Flush();
  cr_expect(InUse() == 0, "%zu bytes", InUse());
}

// A full span is in no list; its countdown must bring it back before memory is taken for another.
Test(mcache, full_spans_come_back) {
  for (size_t size : {size_t{16}, size_t{100}, size_t{1024}, size_t{8192}, size_t{32768}}) {
    std::vector<Block> blocks = Fill3Spans(size, 1);
    uint64_t in_use = InUse();
    for (int round = 0; round < 5; ++round) {
      // Half of each span, every second object.
      std::vector<Block> rest;
      for (size_t i = 0; i < blocks.size(); ++i) {
        if (i % 2 == 0) {
          DropBlock(blocks[i]);
        } else {
          rest.push_back(blocks[i]);
        }
      }
      size_t freed = blocks.size() - rest.size();
      for (size_t i = 0; i < freed; ++i) rest.push_back(NewBlock(size, 1000 + i));
      blocks = rest;
      cr_expect(InUse() <= in_use + kClasses[ClassOf(size)].slices * kSliceSize,
                "size %zu: %zu bytes, %zu at first", size, InUse(), in_use);
    }
    DropBlocks(&blocks);
    Flush();
    cr_assert(InUse() == 0);
  }
}

Test(mcache, spares_serve_other_classes) {
  std::vector<Block> blocks;
  for (int i = 0; i < 6 * kClasses[ClassOf(1024)].slots; ++i) blocks.push_back(NewBlock(1024, 1));
  DropBlocks(&blocks);
  MCache* mc = thread_words.mcache;
  cr_assert(mc->spare_count == kSpareSlices, "%u spares", mc->spare_count);
  uint64_t in_use = InUse();
  for (uint32_t i = 0; i < kSpareSlices; ++i) {
    Span* next = mc->spare[mc->spare_count - 1];
    blocks.push_back(NewBlock(kClasses[20 + i].size, 5));
    cr_expect(FindSpan(AddressOf(blocks.back().p)) == next);
    cr_expect(next->owner == mc && next->state == SpanState::kCurrent);
    cr_expect(mc->spare_count == kSpareSlices - 1 - i);
  }
  cr_expect(InUse() == in_use);
  DropBlocks(&blocks);
}

Test(mcache, remote_frees_come_back) {
  for (size_t size : {size_t{16}, size_t{100}, size_t{1024}, size_t{8192}, size_t{32768}}) {
    uint64_t first = 0;
    for (int round = 0; round < 12; ++round) {
      std::vector<Block> blocks = Fill3Spans(size, 50);
      if (round == 1) first = InUse();
      if (round > 1)
        cr_expect(InUse() <= first, "size %zu: %zu bytes, %zu at first", size, InUse(), first);
      OnThread([&] { DropBlocks(&blocks); });
    }
    Flush();
    cr_assert(InUse() == 0, "size %zu: %zu bytes", size, InUse());
  }
}

// Owner and others free into the same words of the same spans at the same time.
Test(mcache, frees_from_both_sides) {
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    size_t size = round % 2 == 0 ? 32 : 600;
    std::vector<Block> mine, theirs;
    for (int i = 0; i < 3000; ++i)
      (i % 2 == 0 ? mine : theirs).push_back(NewBlock(size, (uint64_t)i));
    std::atomic<bool> go{false};
    std::thread other([&] {
      while (!go) {
      }
      DropBlocks(&theirs);
      DetachThread();
    });
    go = true;
    for (size_t i = 0; i < mine.size(); ++i) {
      DropBlock(mine[i]);
      if (i % 3 == 0) mine[i] = NewBlock(size, i), DropBlock(mine[i]);
    }
    other.join();
  }
  std::vector<Block> blocks = Fill3Spans(32, 9);
  std::vector<Block> more = Fill3Spans(600, 10);
  DropBlocks(&blocks);
  DropBlocks(&more);
  Flush();
  cr_expect(InUse() == 0, "%zu bytes", InUse());
}

Test(mcache, cursor_bits_are_the_slots_not_handed_out) {
  void* p = Malloc(64);
  Span* s = FindSpan(AddressOf(p));
  uint64_t cursor = 0, free = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    cursor += CountBits(CursorBits(s, w));
    free += CountBits(s->free_bits[w]);
  }
  cr_expect(cursor == kClasses[ClassOf(64)].batch - 1u);
  cr_expect(cursor + free + 1 == s->slots);
  cr_expect(CountFree(s) == free);
  Free(p);
}

Test(mcache, circular_lists) {
  Span spans[4] = {};
  Span* list = nullptr;
  for (Span& s : spans) PushBack(&list, &s);
  Span* at = list;
  for (Span& s : spans) {
    cr_expect(at == &s);
    at = at->next;
  }
  cr_expect(at == list && list->prev == &spans[3]);
  Unlink(&list, &spans[2]);
  cr_expect(spans[1].next == &spans[3] && spans[3].prev == &spans[1] && list == &spans[0]);
  Unlink(&list, &spans[0]);
  cr_expect(list == &spans[1]);
  Unlink(&list, &spans[3]);
  Unlink(&list, &spans[1]);
  cr_expect(list == nullptr);
}
