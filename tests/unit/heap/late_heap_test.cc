// SPDX-License-Identifier: Apache-2.0
// Callers without an mcache: threads past their end, and handlers that interrupted the heap.

#include "heap/late_heap.h"

#include <criterion/criterion.h>

#include <set>

#include "heap/large.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

TestSuite(late_heap, .timeout = 60);

Test(late_heap, after_the_end_of_a_thread) {
  std::vector<Block> early, late;
  std::thread([&] {
    for (uint64_t i = 0; i < 200; ++i) early.push_back(NewBlock(1 + i * 97 % 9000, i));
    DetachThread();
    for (uint64_t i = 0; i < 2000; ++i) late.push_back(NewBlock(1 + i * 97 % 9000, i));
    for (const Block& b : early) CheckBlock(b);
    for (const Block& b : late) CheckBlock(b);
    cr_expect(FindSpan(AddressOf(late[0].p))->state == SpanState::kLate);
    cr_expect(thread_words.mcache == &empty_mcache);
    // It frees its own, early and late ones.
    DropBlocks(&early);
    for (size_t i = 0; i < 1000; ++i) {
      DropBlock(late.back());
      late.pop_back();
    }
    // Large ones too.
    DropBlock(NewBlock(100000, 5));
  }).join();
  // Others free them as well, and the late heap hands the slots out again.
  uint64_t in_use = InUse();
  DropBlocks(&late);
  std::thread([&] {
    DetachThread();
    for (uint64_t i = 0; i < 2000; ++i) late.push_back(NewBlock(1 + i * 97 % 9000, i));
  }).join();
  cr_expect(InUse() == in_use, "%zu bytes, %zu before", InUse(), in_use);
  DropBlocks(&late);
}

// What a signal handler sees that interrupted a slow path.
Test(late_heap, while_the_heap_is_busy) {
  std::vector<Block> blocks;
  for (uint64_t i = 0; i < 300; ++i) blocks.push_back(NewBlock(64, i));
  std::set<void*> late;
  thread_words.busy++;
  for (uint64_t i = 0; i < 5000; ++i) {
    blocks.push_back(NewBlock(i % 3 == 0 ? 64 : 16 + i * 31 % 3000, i));
    if (FindSpan(AddressOf(blocks.back().p))->state == SpanState::kLate)
      late.insert(blocks.back().p);
  }
  cr_expect(late.size() > 4000, "%zu", late.size());
  for (const Block& b : blocks) CheckBlock(b);
  // Of both kinds, freed by the fast and the slow half.
  while (blocks.size() > 2500) {
    CheckBlock(blocks.back());
    if (blocks.size() % 2 == 0)
      Free(blocks.back().p);
    else
      FreeSlow(blocks.back().p, nullptr);
    blocks.pop_back();
  }
  for (uint64_t i = 0; i < 500; ++i) blocks.push_back(NewBlock(64, i));
  thread_words.busy--;
  for (uint64_t i = 0; i < 500; ++i) blocks.push_back(NewBlock(64, i));
  DropBlocks(&blocks);
}

Test(late_heap, large_objects_while_the_heap_is_busy) {
  Free(Malloc(1));
  uint64_t before = InUse();
  thread_words.busy++;
  Block a = NewBlock(200000, 1), b = NewBlock(kMaxSmallSize + 1, 2);
  cr_expect(not(ResizeLarge(FindSpan(AddressOf(a.p)), 300000)));
  DropBlock(a);
  DropBlock(b);
  // Their memory waits for a caller who may take the lock.
  cr_expect(InUse() > before);
  thread_words.busy--;
  Block c = NewBlock(kMaxSmallSize + 1, 3);
  cr_expect(InUse() == before + 2 * kSliceSize, "%zu", InUse() - before);
  DropBlock(c);
}

Test(late_heap, many_threads_share_it) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      DetachThread();
      std::vector<Block> blocks;
      for (uint64_t i = 0; i < 20000; ++i) {
        blocks.push_back(NewBlock(16 << (i % 6), i * 4 + t));
        if (blocks.size() == 50) DropBlocks(&blocks);
      }
      DropBlocks(&blocks);
    });
  }
  for (std::thread& t : threads) t.join();
  cr_expect(InUse() <= 6 * 3 * kSliceSize, "%zu bytes", InUse());
}
