// SPDX-License-Identifier: Apache-2.0
// The table of own ranges: exact after entering and cutting, right under several threads.

#include "plat/own_ranges.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>

#include <vector>

#include "plat/vm.h"

using namespace undergo;

namespace {

struct Range {
  Addr from, to;
};

bool Collect(void* context, Addr from, Addr to) {
  static_cast<std::vector<Range>*>(context)->push_back({from, to});
  return true;
}

// Pages of [from, to) that the table says are ours.
size_t PagesIn(Addr from, Addr to) {
  std::vector<Range> all;
  plat::ForEachOwnRange(Collect, &all);
  size_t pages = 0;
  for (const Range& r : all) {
    Addr low = Max(r.from, from), high = Min(r.to, to);
    if (low < high) pages += (high - low) / kOsPageSize;
  }
  return pages;
}

constexpr Addr kBase = Addr{0x100} << 32;  // nothing is mapped there and nothing needs to be

}  // namespace

Test(own_ranges, add_and_cut) {
  constexpr size_t kPage = kOsPageSize;
  plat::AddOwnRange(kBase, 10 * kPage);
  cr_expect(PagesIn(kBase - kPage, kBase + 20 * kPage) == 10);
  plat::RemoveOwnRange(kBase + 4 * kPage, 2 * kPage);
  cr_expect(PagesIn(kBase, kBase + 4 * kPage) == 4);
  cr_expect(PagesIn(kBase + 4 * kPage, kBase + 6 * kPage) == 0);
  cr_expect(PagesIn(kBase + 6 * kPage, kBase + 20 * kPage) == 4);
  plat::RemoveOwnRange(kBase, kPage);
  plat::RemoveOwnRange(kBase + 9 * kPage, kPage);
  cr_expect(PagesIn(kBase, kBase + 20 * kPage) == 6);
  plat::RemoveOwnRange(kBase - kPage, 20 * kPage);
  cr_expect(PagesIn(kBase - kPage, kBase + 20 * kPage) == 0);
}

Test(own_ranges, more_than_one_word_holds) {
  constexpr size_t kSize = size_t{5} << 40;
  plat::AddOwnRange(kBase, kSize);
  cr_expect(PagesIn(kBase, kBase + kSize + kGiB) == kSize / kOsPageSize);
  plat::RemoveOwnRange(kBase, kSize);
  cr_expect(PagesIn(kBase, kBase + kSize) == 0);
}

Test(own_ranges, more_ranges_than_the_first_table_holds) {
  constexpr size_t kCount = 3000;
  Addr far = kBase + (Addr{1} << 40);
  for (size_t i = 0; i < kCount; ++i) plat::AddOwnRange(far + i * 2 * kOsPageSize, kOsPageSize);
  cr_expect(PagesIn(far, far + kCount * 2 * kOsPageSize) == kCount);
  for (size_t i = 0; i < kCount; ++i) plat::RemoveOwnRange(far + i * 2 * kOsPageSize, kOsPageSize);
  cr_expect(PagesIn(far, far + kCount * 2 * kOsPageSize) == 0);
}

Test(own_ranges, stops_when_told) {
  plat::AddOwnRange(kBase, kOsPageSize);
  plat::AddOwnRange(kBase + 2 * kOsPageSize, kOsPageSize);
  int calls = 0;
  auto stop = [](void* context, Addr, Addr) {
    ++*static_cast<int*>(context);
    return false;
  };
  cr_expect(not(plat::ForEachOwnRange(stop, &calls)));
  cr_expect(calls == 1);
}

Test(own_ranges, mapping_enters_and_unmapping_removes) {
  constexpr size_t kSize = 16 * kOsPageSize;
  auto a = reinterpret_cast<Addr>(plat::MapPages(kSize));
  auto b = reinterpret_cast<Addr>(plat::Reserve(kSize, 0));
  auto c = reinterpret_cast<Addr>(plat::ReserveReadable(kSize, 0));
  for (Addr at : {a, b, c}) cr_expect(PagesIn(at, at + kSize) == 16);
  plat::Unmap(a, kSize);
  cr_assert(plat::MapAt(a, kSize));
  cr_expect(PagesIn(a, a + kSize) == 16);
  plat::Unmap(b + 4 * kOsPageSize, 4 * kOsPageSize);
  cr_expect(PagesIn(b, b + kSize) == 12);
  plat::Unmap(a, kSize);
  plat::Unmap(b, kSize);
  plat::Unmap(c, kSize);
  for (Addr at : {a, b, c}) cr_expect(PagesIn(at, at + kSize) == 0);
}

Test(own_ranges, many_threads) {
  constexpr int kThreads = 4;
  auto run = [](void* arg) -> void* {
    Addr base = kBase + reinterpret_cast<Addr>(arg) * kGiB;
    for (int round = 0; round < 3000; ++round) {
      for (Addr i = 0; i < 8; ++i) plat::AddOwnRange(base + i * 65536, 5 * kOsPageSize);
      for (Addr i = 0; i < 8; ++i) {
        plat::RemoveOwnRange(base + i * 65536 + 2 * kOsPageSize, kOsPageSize);
      }
      if (round == 2999) break;
      plat::RemoveOwnRange(base, kMiB);
    }
    return nullptr;
  };
  pthread_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    pthread_create(&threads[i], nullptr, run, reinterpret_cast<void*>(static_cast<Addr>(i)));
  }
  for (pthread_t t : threads) pthread_join(t, nullptr);
  for (Addr i = 0; i < kThreads; ++i) {
    cr_expect(PagesIn(kBase + i * kGiB, kBase + (i + 1) * kGiB) == 32);
  }
}

Test(own_ranges, own_module) {
  static int data = 1;
  static int bss;
  data = bss + 2;
  for (int i = 0; i < 2; ++i) plat::AddOwnModule();
  for (const int* p : {&data, &bss}) {
    Addr page = AlignDown(reinterpret_cast<Addr>(p), kOsPageSize);
    cr_expect(PagesIn(page, page + kOsPageSize) == 1);
  }
  int on_stack = 0;
  Addr stack = AlignDown(reinterpret_cast<Addr>(&on_stack), kOsPageSize);
  cr_expect(PagesIn(stack, stack + kOsPageSize) == 0);
  auto libc = AlignDown(reinterpret_cast<Addr>(stdout), kOsPageSize);
  cr_expect(PagesIn(libc, libc + kOsPageSize) == 0);
}
