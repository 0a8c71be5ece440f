// SPDX-License-Identifier: Apache-2.0
// Careful slices: exactly those that were touched, and nobody reads them directly afterwards.

#include "heap/careful.h"

#include <criterion/criterion.h>

#include <atomic>
#include <thread>

#include "plat/vm.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

TestSuite(careful, .timeout = 60);

Test(careful, slices_that_are_touched) {
  Block b = NewBlock(8 * kSliceSize, 1);
  Addr at = AddressOf(b.p);
  uint32_t first = SliceOf(at);
  cr_expect(not(SliceIsCareful(first)));
  MakeCareful(at + 2 * kSliceSize - 1, 2);
  MakeCareful(at + 5 * kSliceSize, kSliceSize);
  for (uint32_t i = 0; i < 8; ++i) {
    cr_expect(SliceIsCareful(first + i) == (i == 1 || i == 2 || i == 5), "slice %u", i);
  }
  cr_expect(RangeIsCareful(at, at + kSliceSize + 1));
  cr_expect(not(RangeIsCareful(at, at + kSliceSize)));
  cr_expect(not(RangeIsCareful(at + 3 * kSliceSize, at + 5 * kSliceSize)));
  cr_expect(SpanIsCareful(FindSpan(at)));
}

Test(careful, memory_of_others) {
  MakeCareful(4096, 4096);
  cr_expect(not(careful_map.any), "there is no heap yet");
  Block b = NewBlock(100, 1);
  MakeCareful(4096, 4096);
  MakeCareful(arena.base - 2 * kSliceSize, kSliceSize);
  MakeCareful(arena.base + arena.size, ~size_t{0} - arena.base - arena.size);
  MakeCareful(AddressOf(b.p), ~size_t{0});
  cr_expect(not(careful_map.any));
  MakeCareful(arena.base - kSliceSize, 2 * kSliceSize);
  cr_expect(SliceIsCareful(0) && not(SliceIsCareful(1)));
}

Test(careful, no_memory_for_the_map) {
  Block b = NewBlock(100, 1);
  plat::vm_failure_hook = [] { return true; };
  MakeCareful(AddressOf(b.p), 1);
  plat::vm_failure_hook = nullptr;
  cr_expect(SliceIsCareful(SliceOf(AddressOf(b.p))));
  cr_expect(SliceIsCareful(12345), "everything counts as careful then");
}

// After MakeCareful no reader is left that saw the slice as an ordinary one.
Test(careful, waits_for_readers) {
  Block b = NewBlock(1000 * kSliceSize, 1);
  Addr at = AddressOf(b.p);
  static std::atomic<uint32_t> reading[1000];
  static std::atomic<bool> stop;
  static Addr base;
  base = at;
  auto read = [] {
    for (uint32_t n = 0; !stop.load(); ++n) {
      uint32_t i = n % 1000;
      DirectReads reads;
      if (SliceIsCareful(SliceOf(base) + i)) continue;
      reading[i].fetch_add(1);
      for (int spin = 0; spin < 50; ++spin) CpuRelax();
      reading[i].fetch_sub(1);
    }
  };
  std::thread a(read), c(read);
  for (uint32_t i = 999; i > 0; --i) {
    MakeCareful(at + i * kSliceSize, 1);
    for (int look = 0; look < 100; ++look) cr_assert(reading[i].load() == 0, "slice %u", i);
  }
  stop = true;
  a.join();
  c.join();
}

// Within the heap's own code, as in a signal handler above it, nothing is waited for.
Test(careful, does_not_wait_for_its_own_thread) {
  Block b = NewBlock(100, 1);
  BusyScope busy;
  DirectReads reads;
  MakeCareful(AddressOf(b.p), 1);
  cr_expect(SliceIsCareful(SliceOf(AddressOf(b.p))));
}

Test(careful, child_forgets_the_readers_of_its_parent) {
  Block b = NewBlock(100, 1);
  DirectReads reads;
  ResetDirectReadsInChild();
  MakeCareful(AddressOf(b.p), 1);
  cr_expect(SliceIsCareful(SliceOf(AddressOf(b.p))));
}
