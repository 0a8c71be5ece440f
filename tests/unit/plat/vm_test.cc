// SPDX-License-Identifier: Apache-2.0
// Pages: what is readable, what is zero, what fails how, and that nothing touches errno.

#include "plat/vm.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

using namespace undergo;

namespace {

bool Resident(Addr page) {
  unsigned char byte = 0;
  cr_assert(mincore(reinterpret_cast<void*>(page), kOsPageSize, &byte) == 0);
  return (byte & 1) != 0;
}

bool IsZero(const char* p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

constexpr size_t kSize = 64 * kOsPageSize;

}  // namespace

Test(vm, reserve_commit_discard) {
  auto* p = static_cast<char*>(plat::Reserve(kSize, 0));
  cr_assert(p != nullptr);
  Addr at = reinterpret_cast<Addr>(p);
  char byte;
  cr_expect(not(plat::SafeRead(at, &byte, 1)), "reserved pages are readable");
  cr_assert(plat::Commit(at + kOsPageSize, 4 * kOsPageSize));
  cr_expect(not(plat::SafeRead(at, &byte, 1)));
  cr_expect(not(plat::SafeRead(at + 5 * kOsPageSize, &byte, 1)));
  cr_expect(IsZero(p + kOsPageSize, 4 * kOsPageSize));
  memset(p + kOsPageSize, 7, 4 * kOsPageSize);
  cr_expect(Resident(at + 2 * kOsPageSize));
  cr_assert(plat::Discard(at + 2 * kOsPageSize, kOsPageSize));
  cr_expect(not(Resident(at + 2 * kOsPageSize)));
  cr_expect(p[kOsPageSize] == 7 && p[3 * kOsPageSize] == 7);
  cr_expect(IsZero(p + 2 * kOsPageSize, kOsPageSize));
  plat::Unmap(at, kSize);
  cr_expect(not(plat::IsMapped(at, kSize)));
}

Test(vm, readable_reservation) {
  auto* p = static_cast<char*>(plat::ReserveReadable(kSize, 0));
  cr_assert(p != nullptr);
  cr_expect(IsZero(p, kSize));
  char byte = 1;
  cr_expect(plat::SafeRead(reinterpret_cast<Addr>(p), &byte, 1) && byte == 0);
  cr_assert(plat::Commit(reinterpret_cast<Addr>(p), kSize));
  p[kSize - 1] = 1;
}

Test(vm, map_at_takes_only_free_addresses) {
  auto* p = static_cast<char*>(plat::MapPages(kSize));
  cr_assert(p != nullptr && IsZero(p, kSize));
  Addr at = reinterpret_cast<Addr>(p);
  p[kSize / 2] = 5;
  cr_expect(not(plat::MapAt(at, kSize)));
  cr_expect(not(plat::MapAt(at + kSize / 2, kOsPageSize)));
  cr_expect(p[kSize / 2] == 5, "an existing mapping was replaced");
  plat::Unmap(at + kOsPageSize, 2 * kOsPageSize);
  cr_expect(not(plat::IsMapped(at, kSize)));
  cr_expect(plat::MapAt(at + kOsPageSize, 2 * kOsPageSize));
  cr_expect(IsZero(p + kOsPageSize, 2 * kOsPageSize));
  cr_expect(plat::IsMapped(at, kSize));
  // More than half of all addresses cannot be had.
  cr_expect(plat::MapPages(size_t{1} << 47) == nullptr);
  cr_expect(plat::Reserve(size_t{1} << 47, 0) == nullptr);
}

Test(vm, is_mapped_looks_at_each_page) {
  auto* p = static_cast<char*>(plat::MapPages(kSize));
  Addr at = reinterpret_cast<Addr>(p);
  for (size_t hole : {0, 1, 15, 16, 17, 40, 63}) {
    plat::Unmap(at + hole * kOsPageSize, kOsPageSize);
    cr_expect(not(plat::IsMapped(at, kSize)), "hole at page %zu", hole);
    cr_expect(not(plat::IsMapped(at + hole * kOsPageSize, 1)));
    if (hole > 0) {
      cr_expect(plat::IsMapped(at + (hole - 1) * kOsPageSize, kOsPageSize));
      cr_expect(not(plat::IsMapped(at + hole * kOsPageSize - 1, 2)), "bytes across the border");
      cr_expect(plat::IsMapped(at + hole * kOsPageSize - 1, 1));
    }
    cr_assert(plat::MapAt(at + hole * kOsPageSize, kOsPageSize));
    cr_assert(plat::IsMapped(at, kSize));
  }
  cr_expect(not(plat::IsMapped(0, 1)));
}

Test(vm, safe_read) {
  auto* p = static_cast<char*>(plat::MapPages(2 * kOsPageSize));
  Addr at = reinterpret_cast<Addr>(p);
  for (size_t i = 0; i < 2 * kOsPageSize; ++i) p[i] = static_cast<char>(i * 7);
  char copy[300];
  for (size_t from : {size_t{0}, size_t{1}, kOsPageSize - 150, 2 * kOsPageSize - 300}) {
    cr_assert(plat::SafeRead(at + from, copy, sizeof copy));
    cr_expect(memcmp(copy, p + from, sizeof copy) == 0);
  }
  plat::Unmap(at + kOsPageSize, kOsPageSize);
  cr_expect(plat::SafeRead(at + kOsPageSize - 300, copy, 300));
  cr_expect(not(plat::SafeRead(at + kOsPageSize - 299, copy, 300)));
  for (Addr wild : {Addr{0}, Addr{8}, Addr{1} << 47, ~Addr{0} - 400, Addr{0x4141414141414141}}) {
    cr_expect(not(plat::SafeRead(wild, copy, 8)), "%#zx", wild);
  }
}

namespace {

int calls;
bool refuse;
bool Hook() {
  ++calls;
  return refuse;
}

}  // namespace

Test(vm, failure_hook) {
  Addr at = reinterpret_cast<Addr>(plat::Reserve(kSize, 0));
  plat::vm_failure_hook = Hook;
  refuse = true;
  cr_expect(plat::Reserve(kSize, 0) == nullptr);
  cr_expect(plat::ReserveReadable(kSize, 0) == nullptr);
  cr_expect(plat::MapPages(kSize) == nullptr);
  cr_expect(not(plat::Commit(at, kSize)));
  plat::Unmap(at, kSize);
  cr_expect(not(plat::MapAt(at, kSize)));
  cr_expect(calls == 5, "%d calls", calls);
  refuse = false;
  cr_expect(plat::MapAt(at, kSize));
  cr_expect(calls == 6);
}

Test(vm, keeps_errno) {
  errno = 77;
  Addr at = reinterpret_cast<Addr>(plat::MapPages(kSize));
  cr_expect(plat::MapPages(size_t{1} << 47) == nullptr);
  cr_expect(not(plat::MapAt(at, kSize)));
  plat::Unmap(at, kSize);
  cr_expect(not(plat::Commit(at, kSize)));
  cr_expect(not(plat::Discard(at, kSize)));
  cr_expect(not(plat::AdviseHugePages(at, kSize, true)));
  cr_expect(not(plat::IsMapped(at, kSize)));
  char byte;
  cr_expect(not(plat::SafeRead(at, &byte, 1)));
  cr_expect(errno == 77, "errno %d", errno);
}

Test(vm, address_space_limit) {
  cr_expect(not(plat::AddressSpaceLimited()));
  struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  limit.rlim_cur = size_t{1} << 46;
  cr_assert(setrlimit(RLIMIT_AS, &limit) == 0);
  cr_expect(plat::AddressSpaceLimited());
}
