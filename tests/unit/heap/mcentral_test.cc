// SPDX-License-Identifier: Apache-2.0
// Spans between owners: what a thread leaves behind serves the next one, with live objects in it.

#include "heap/mcentral.h"

#include <criterion/criterion.h>

#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

TestSuite(mcentral, .timeout = 60);

Test(mcentral, a_thread_that_ends_hands_its_spans_on) {
  for (size_t size : {size_t{16}, size_t{200}, size_t{3000}, size_t{24576}}) {
    const SizeClass& c = kClasses[ClassOf(size)];
    std::vector<Block> blocks;
    OnThread([&] {
      for (int i = 0; i < 4 * c.slots; ++i)
        blocks.push_back(NewBlock(size, static_cast<uint64_t>(i)));
      std::vector<Block> rest;
      for (size_t i = 0; i < blocks.size(); ++i) {
        if (i % 2 == 0)
          DropBlock(blocks[i]);
        else
          rest.push_back(blocks[i]);
      }
      blocks = rest;
    });
    uint64_t in_use = InUse();
    OnThread([&] {
      // Half of the slots are free: all of them are had without another span.
      for (int i = 0; i < 2 * c.slots; ++i) blocks.push_back(NewBlock(size, 7777 + (uint64_t)i));
      cr_expect(InUse() <= in_use, "size %zu: %zu bytes, %zu before", size, InUse(), in_use);
      DropBlocks(&blocks);
    });
    BusyScope busy;
    ReclaimAll();
    cr_assert(InUse() == 0, "size %zu: %zu bytes left", size, InUse());
  }
}

Test(mcentral, take_and_give) {
  std::vector<Block> blocks;
  MCentral& central = mcentrals[ClassOf(128)];
  BusyScope busy;
  cr_expect(central.Take(thread_words.mcache) == nullptr);
  thread_words.busy--;
  Free(Malloc(1));
  OnThread([&] {
    for (int i = 0; i < 10; ++i) blocks.push_back(NewBlock(128, static_cast<uint64_t>(i)));
  });
  thread_words.busy++;
  Span* s = FindSpan(AddressOf(blocks[0].p));
  cr_expect(s->state == SpanState::kCentral && s->owner == nullptr);
  cr_expect(central.Take(thread_words.mcache) == s);
  cr_expect(s->owner == thread_words.mcache && s->state == SpanState::kFull);
  cr_expect(CountFree(s) == s->slots - 10u);
  cr_expect(central.Take(thread_words.mcache) == nullptr);
  central.Give(s);
  cr_expect(s->state == SpanState::kCentral && s->owner == nullptr);
  // Its last objects are freed while nobody owns it: it goes back to the page heap.
  thread_words.busy--;
  DropBlocks(&blocks);
  thread_words.busy++;
  central.ReleaseEmpty();
  cr_expect(s->state == SpanState::kFree && InUse() <= kSliceSize, "%zu bytes", InUse());
}

// Threads are born and die while others free what they made.
Test(mcentral, generations) {
  std::vector<Block> left;
  for (int generation = 0; generation < 40; ++generation) {
    std::vector<Block> made;
    std::thread maker([&] {
      for (uint64_t i = 0; i < 4000; ++i) made.push_back(NewBlock(48 + i % 5 * 100, i));
      DetachThread();
    });
    DropBlocks(&left);
    maker.join();
    left = made;
    // Two generations of a megabyte live at once, of forty.
    cr_expect(InUse() <= 3 * kMiB, "generation %d: %zu bytes", generation, InUse());
  }
  DropBlocks(&left);
  BusyScope busy;
  ReclaimAll();
  cr_expect(InUse() == 0, "%zu bytes left", InUse());
}
