// SPDX-License-Identifier: Apache-2.0
// Sizes, alignment, realloc in all directions, refusals.

#include "heap/malloc.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "plat/vm.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

size_t Usable(void* p) { return UsableSize(p, nullptr, "usable"); }

// Sizes around every border that realloc knows.
const size_t kSizes[] = {1,     15,    16,     17,     100,     128,     129,
                         1000,  4096,  16384,  16385,  32768,   65535,   65536,
                         65537, 70000, 131072, 200000, 1048576, 1048577, 5000000};

bool Refuse() { return true; }

}  // namespace

TestSuite(malloc, .timeout = 60);

Test(malloc, usable_and_good_sizes) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{16}, size_t{17}, size_t{1000}, size_t{65535},
                      size_t{65536}, size_t{65537}, size_t{1} << 20, (size_t{1} << 20) + 1}) {
    void* p = Malloc(size);
    cr_assert(p != nullptr && AddressOf(p) % 16 == 0);
    cr_expect(Usable(p) >= size && Usable(p) > 0);
    cr_expect(Usable(p) == GoodSize(size), "%zu: %zu, said %zu", size, Usable(p), GoodSize(size));
    memset(p, 0xee, Usable(p));
    Free(p);
  }
  cr_expect(Malloc(0) != Malloc(0));
}

Test(malloc, zeroed) {
  Random random = {5};
  std::vector<Block> blocks;
  for (int step = 0; step < 20000; ++step) {
    size_t size = Below(&random, Below(&random, 40) == 0 ? 300000 : 3000);
    void* p = MallocZeroed(size);
    cr_assert(p != nullptr && IsZero(p, size), "step %d: %zu bytes are not zero", step, size);
    memset(p, 0x77, Usable(p));
    blocks.push_back({p, 0, 0});
    while (blocks.size() > 200) {
      size_t i = Below(&random, blocks.size());
      Free(blocks[i].p);
      blocks[i] = blocks.back();
      blocks.pop_back();
    }
    if (step % 5000 == 0) Trim();
  }
}

Test(malloc, realloc_in_all_directions) {
  for (size_t from : kSizes) {
    for (size_t to : kSizes) {
      Block b = NewBlock(from, from * 31 + to);
      void* q = Realloc(b.p, to, nullptr);
      cr_assert(q != nullptr && AddressOf(q) % 16 == 0);
      size_t kept = Min(from, to);
      cr_assert(Verify(q, kept, b.tag) == kept, "%zu to %zu lost its contents", from, to);
      cr_assert(Usable(q) >= to, "%zu to %zu: %zu usable", from, to, Usable(q));
      Fill(q, to, to);
      // The old block, if it is another one, is free: it may not be counted as usable.
      DropBlock({q, to, to});
    }
  }
}

Test(malloc, realloc_keeps_neighbours) {
  Random random = {6};
  std::vector<Block> blocks;
  for (uint64_t i = 0; i < 60; ++i) blocks.push_back(NewBlock(1 + Below(&random, 5000), i));
  for (uint64_t step = 0; step < 20000; ++step) {
    Block& b = blocks[Below(&random, blocks.size())];
    size_t size = 1 + Below(&random, Below(&random, 20) == 0 ? 400000 : 5000);
    b.p = Realloc(b.p, size, nullptr);
    size_t kept = Min(b.size, size);
    cr_assert(Verify(b.p, kept, b.tag) == kept, "step %zu: %zu to %zu", step, b.size, size);
    b = {b.p, size, step};
    Fill(b.p, size, step);
  }
  DropBlocks(&blocks);
}

Test(malloc, realloc_moves_no_more_than_it_must) {
  void* p = Malloc(100);
  cr_expect(Realloc(p, 90, nullptr) == p && Realloc(p, 104, nullptr) == p);
  void* large = Malloc(1 << 20);
  cr_expect(Realloc(large, (1 << 20) + 4096, nullptr) == large, "room behind a large object");
  cr_expect(Realloc(large, 1 << 19, nullptr) == large);
  // What was cut off is free again.
  uint64_t in_use = InUse();
  cr_expect(Realloc(large, 1 << 20, nullptr) == large);
  cr_expect(InUse() > in_use);
}

Test(malloc, realloc_across_threads) {
  std::vector<Block> blocks;
  OnThread([&] {
    for (uint64_t i = 0; i < 500; ++i) blocks.push_back(NewBlock(1 + i * 41 % 3000, i));
  });
  for (Block& b : blocks) {
    void* q = Realloc(b.p, b.size * 3, nullptr);
    cr_assert(Verify(q, b.size, b.tag) == b.size);
    b.p = q;
  }
  DropBlocks(&blocks);
}

Test(malloc, realloc_that_fails_leaves_the_object_alone) {
  Block b = NewBlock(1000, 3);
  for (size_t huge : {kMaxRequest + 1, kMaxRequest, SIZE_MAX, size_t{1} << 46}) {
    errno = 0;
    cr_expect(Realloc(b.p, huge, nullptr) == nullptr && errno == ENOMEM, "%zx", huge);
    CheckBlock(b);
  }
  plat::vm_failure_hook = Refuse;
  errno = 0;
  cr_expect(Realloc(b.p, size_t{4} << 30, nullptr) == nullptr && errno == ENOMEM);
  DropBlock(b);
}

Test(malloc, alignment) {
  for (size_t align = 1; align <= 16 * kMiB; align *= 2) {
    std::vector<Block> blocks;
    for (size_t size : {size_t{0}, size_t{1}, size_t{24}, size_t{100}, size_t{5000}, size_t{40000},
                        size_t{65536}, size_t{65537}, size_t{300000}}) {
      for (uint64_t i = 0; i < 3; ++i) {
        void* p = MallocAligned(align, size);
        cr_assert(p != nullptr && AddressOf(p) % align == 0, "%zu bytes by %zu: %p", size, align,
                  p);
        cr_assert(AddressOf(p) % (size < 8 ? 8 : 16) == 0);
        cr_assert(Usable(p) >= size);
        blocks.push_back({p, size, align + size + i});
        Fill(p, size, align + size + i);
        blocks.push_back(NewBlock(size, i));
      }
    }
    DropBlocks(&blocks);
  }
}

Test(malloc, aligned_blocks_can_be_resized_and_freed_by_others) {
  for (size_t align : {size_t{64}, size_t{4096}, size_t{1} << 18}) {
    void* p = MallocAligned(align, 3 * align + 100);
    Fill(p, 3 * align + 100, 9);
    p = Realloc(p, 10 * align + 50, nullptr);
    cr_expect(Verify(p, 3 * align + 100, 9) == 3 * align + 100);
    OnThread([&] { Free(p); });
  }
}

Test(malloc, huge_requests_fail_and_say_so) {
  for (size_t size :
       {kMaxRequest, kMaxRequest + 1, SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX - kSliceSize,
        size_t{1} << 47, size_t{kMaxSlices} * kSliceSize + 1}) {
    errno = 0;
    cr_expect(Malloc(size) == nullptr && errno == ENOMEM, "malloc %#zx", size);
    errno = 0;
    cr_expect(MallocZeroed(size) == nullptr && errno == ENOMEM, "calloc %#zx", size);
    errno = 0;
    cr_expect(MallocAligned(64, size) == nullptr && errno == ENOMEM, "aligned %#zx", size);
  }
  for (size_t align : {size_t{1} << 46, size_t{1} << 62, size_t{1} << 63}) {
    errno = 0;
    cr_expect(MallocAligned(align, 1) == nullptr && errno == ENOMEM, "alignment %#zx", align);
  }
  errno = 7;
  void* p = Malloc(100);
  cr_expect(p != nullptr && errno == 7, "success touched errno");
  Free(p);
  cr_expect(errno == 7, "free touched errno");
}

Test(malloc, no_memory_and_then_some) {
  Free(Malloc(1));
  plat::vm_failure_hook = Refuse;
  std::vector<Block> blocks;
  for (;;) {
    errno = 0;
    void* p = Malloc(5000);
    if (p == nullptr) break;
    blocks.push_back({p, 0, 0});
    cr_assert(blocks.size() < 1000000);
  }
  cr_expect(errno == ENOMEM && blocks.size() > 1000, "%zu blocks", blocks.size());
  // Any class goes on as soon as something is freed, also by a span of another class.
  for (size_t i = 0; i < 100; ++i) Free(blocks[i].p);
  std::vector<Block> small;
  for (uint64_t i = 0; i < 1000; ++i) small.push_back(NewBlock(100, i));
  DropBlocks(&small);
  plat::vm_failure_hook = nullptr;
  for (uint64_t i = 0; i < 20000; ++i) small.push_back(NewBlock(5000, i));
  DropBlocks(&small);
}

Test(malloc, trim) {
  std::vector<Block> blocks;
  for (uint64_t i = 0; i < 10000; ++i) blocks.push_back(NewBlock(1000, i));
  DropBlocks(&blocks);
  cr_expect(Trim());
  cr_expect(mheap.stats().dirty_free_bytes == 0 && InUse() == 0);
  cr_expect(mheap.stats().purged_bytes >= 10000 * 1000);
  cr_expect(not(Trim()), "nothing was left");
}
