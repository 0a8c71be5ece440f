// SPDX-License-Identifier: Apache-2.0
// The list of mappings: this program finds itself in it, and agrees with a naive reader.

#include "plat/maps.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <string>
#include <vector>

using namespace undergo;

namespace {

struct Found {
  Addr address;
  int times;
  plat::Mapping mapping;
  char path[512];
};

bool Look(void* context, const plat::Mapping& m) {
  auto* found = static_cast<Found*>(context);
  if (found->address < m.start || found->address >= m.end) return true;
  found->times++;
  found->mapping = m;
  snprintf(found->path, sizeof found->path, "%s", m.path);
  return true;
}

Found Find(const void* p) {
  Found found = {reinterpret_cast<Addr>(p), 0, {}, ""};
  cr_assert(plat::ForEachMapping(Look, &found));
  return found;
}

bool Count(void* context, const plat::Mapping&) { return ++*static_cast<int*>(context) < 3; }

int writable_global = 1;

}  // namespace

Test(maps, finds_code_data_and_stack) {
  Found code = Find(reinterpret_cast<void*>(&Find));
  cr_expect(code.times == 1);
  cr_expect(code.mapping.readable && code.mapping.executable && not(code.mapping.writable));
  cr_expect(strchr(code.path, '/') != nullptr, "path '%s'", code.path);
  Found data = Find(&writable_global);
  cr_expect(data.times == 1 && data.mapping.writable && not(data.mapping.executable));
  int local = 0;
  Found stack = Find(&local);
  cr_expect(stack.times == 1 && stack.mapping.writable);
  cr_expect(strcmp(stack.path, "[stack]") == 0, "path '%s'", stack.path);
  cr_expect(Find(nullptr).times == 0);
}

Test(maps, borders_and_rights_of_a_mapping) {
  auto* p = static_cast<char*>(
      mmap(nullptr, 16 * kOsPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  cr_assert(mprotect(p + 4 * kOsPageSize, 2 * kOsPageSize, PROT_READ | PROT_WRITE) == 0);
  Found inner = Find(p + 5 * kOsPageSize);
  cr_expect(inner.mapping.start == reinterpret_cast<Addr>(p) + 4 * kOsPageSize);
  cr_expect(inner.mapping.end == reinterpret_cast<Addr>(p) + 6 * kOsPageSize);
  cr_expect(inner.mapping.readable && inner.mapping.writable && not(inner.mapping.executable));
  cr_expect(inner.path[0] == '\0' && inner.mapping.file_offset == 0);
  Found outer = Find(p);
  cr_expect(not(outer.mapping.readable) && not(outer.mapping.writable));
}

namespace {

std::vector<std::pair<Addr, Addr>> ours;
bool Collect(void*, const plat::Mapping& m) {
  ours.emplace_back(m.start, m.end);
  return true;
}

}  // namespace

// Enough mappings for a file of several buffers, whose lines break at every possible place.
Test(maps, agrees_with_the_c_library) {
  for (int i = 0; i < 600; ++i) {
    mmap(nullptr, kOsPageSize, i % 2 == 0 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
         0);
  }
  ours.reserve(4096);
  std::vector<std::pair<Addr, Addr>> theirs;
  theirs.reserve(4096);
  std::vector<char> line(8192);
  FILE* f = fopen("/proc/self/maps", "r");
  cr_assert(f != nullptr);
  cr_assert(plat::ForEachMapping(Collect, nullptr));
  while (fgets(line.data(), 8192, f) != nullptr) {
    unsigned long start, end;
    cr_assert(sscanf(line.data(), "%lx-%lx", &start, &end) == 2);
    theirs.emplace_back(start, end);
  }
  fclose(f);
  cr_assert(theirs.size() > 300);
  cr_assert(ours.size() == theirs.size(), "%zu mappings, wanted %zu", ours.size(), theirs.size());
  for (size_t i = 0; i < ours.size(); ++i) cr_assert(ours[i] == theirs[i], "mapping %zu", i);
}

Test(maps, stops_when_asked) {
  int count = 0;
  cr_assert(plat::ForEachMapping(Count, &count));
  cr_expect(count == 3);
}

// The list with sizes has the same mappings, and counts the pages of each.
Test(maps, sizes) {
  constexpr size_t kSize = 16 * kOsPageSize;
  auto* p = static_cast<char*>(
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  madvise(p, kSize, MADV_NOHUGEPAGE);
  p[0] = p[3 * kOsPageSize] = 1;
  struct Sum {
    Addr at;
    size_t anonymous, count;
    bool shared;
  } sum = {reinterpret_cast<Addr>(p), 0, 0, true};
  auto look = [](void* context, const plat::Mapping& m) {
    auto* s = static_cast<Sum*>(context);
    ++s->count;
    if (m.start <= s->at && s->at < m.end) {
      s->anonymous = m.anonymous;
      s->shared = m.shared;
    }
    return true;
  };
  // Protected alone, so that it is a mapping of its own.
  mprotect(p, kSize, PROT_READ);
  cr_assert(plat::ForEachMapping(look, &sum, plat::MapSource::kSizes));
  cr_expect(sum.anonymous == 2 * kOsPageSize, "%zu bytes", sum.anonymous);
  cr_expect(not(sum.shared));
  size_t with_sizes = sum.count;
  sum.count = 0;
  cr_assert(plat::ForEachMapping(look, &sum));
  cr_expect(sum.count == with_sizes);
  cr_expect(sum.anonymous == 0);
}

Test(maps, describes_an_address) {
  char text[256];
  Fmt out(text, sizeof text);
  plat::DescribeAddress(reinterpret_cast<Addr>(&Find), &out);
  Found code = Find(reinterpret_cast<void*>(&Find));
  char wanted[600];
  const char* slash = strrchr(code.path, '/');
  snprintf(wanted, sizeof wanted, "%p (%s+0x%lx)", reinterpret_cast<void*>(&Find), slash + 1,
           reinterpret_cast<Addr>(&Find) - code.mapping.start + code.mapping.file_offset);
  cr_expect(strcmp(text, wanted) == 0, "'%s', wanted '%s'", text, wanted);
  Fmt wild(text, sizeof text);
  plat::DescribeAddress(0x1234, &wild);
  cr_expect(strcmp(text, "0x1234") == 0, "'%s'", text);
}
