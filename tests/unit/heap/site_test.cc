// SPDX-License-Identifier: Apache-2.0
// Each object knows where it was made; equal chains have one number.

#include "heap/site.h"

#include <criterion/criterion.h>

#include <set>

#include "heap/malloc.h"
#include "plat/real.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

void Start() {
  real::Resolve();
  Malloc(64);  // its cursor has slots left
  cr_assert(EnableSites());
}

}  // namespace

TestSuite(site, .timeout = 30, .init = Start);

// In a unit test all code is the library's own, so all chains begin where libc calls main or a
// thread: chains of two threads differ, those of one do not.
Test(site, of_every_size) {
  std::set<uint32_t> here;
  for (size_t size : SizesOfEachClass()) here.insert(SiteOf(AddressOf(Malloc(size))));
  here.insert(SiteOf(AddressOf(Malloc(300000))));
  here.insert(SiteOf(AddressOf(MallocAligned(4096, 100))));
  cr_expect(here.size() == 1 && *here.begin() != kNoSite);
  uint32_t there = kNoSite;
  OnThread([&] { there = SiteOf(AddressOf(Malloc(100))); });
  cr_expect(there != kNoSite && here.count(there) == 0);
  char text[1024];
  Fmt out(text, sizeof text);
  DescribeSite(there, &out);
  cr_expect(strstr(text, "libc.so.6+0x") != nullptr, "%s", text);
}

Test(site, interior_addresses_and_freed_objects) {
  char* p = static_cast<char*>(Malloc(1000));
  uint32_t site = SiteOf(AddressOf(p));
  cr_expect(SiteOf(AddressOf(p + 700)) == site);
  Free(p);
  cr_expect(SiteOf(AddressOf(p)) == site);
  int local;
  cr_expect(SiteOf(AddressOf(&local)) == kNoSite);
}

Test(site, fast_paths_take_no_slot) {
  // Every allocation must pass the slow path, or it has no site.
  for (int i = 0; i < 3000; ++i) {
    void* p = Malloc(64);
    cr_assert(SiteOf(AddressOf(p)) != kNoSite, "object %d", i);
    if (i % 3 == 0) Free(p);
  }
}
