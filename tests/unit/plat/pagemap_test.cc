// SPDX-License-Identifier: Apache-2.0
// Which pages exist, by each of the sources.

#include "plat/pagemap.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "seccomp.h"

using namespace undergo;

namespace {

constexpr size_t kPage = kOsPageSize;
constexpr size_t kPages = 32;

using Pages = std::set<size_t>;

struct Context {
  Pages pages;
  Addr base;
};

void Add(void* context, Addr from, Addr to) {
  auto* c = static_cast<Context*>(context);
  for (Addr a = from; a < to; a += kPage) c->pages.insert((a - c->base) / kPage);
}

char* Map(int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1, int prot = PROT_READ | PROT_WRITE) {
  void* p = mmap(nullptr, kPages * kPage, prot, flags, fd, 0);
  cr_assert(p != MAP_FAILED);
  madvise(p, kPages * kPage, MADV_NOHUGEPAGE);
  return static_cast<char*>(p);
}

Pages Runs(const char* p, plat::FilePages files, bool* told = nullptr) {
  Context c = {{}, reinterpret_cast<Addr>(p)};
  plat::PageMap pages;
  bool ok = pages.ForEachRun(c.base, c.base + kPages * kPage, files, Add, &c);
  if (told != nullptr) *told = ok;
  return c.pages;
}

// Pages 2 and 5 written, 7 only read, 9 written and discarded.
char* Sparse() {
  char* p = Map();
  p[2 * kPage] = p[5 * kPage] = p[9 * kPage] = 1;
  volatile char read = p[7 * kPage];
  static_cast<void>(read);
  madvise(p + 9 * kPage, kPage, MADV_DONTNEED);
  return p;
}

void Forbid(const int* calls, int count) {
  cr_assert(FilterCalls(calls, count, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW, 0) == 0);
}

}  // namespace

Test(pagemap, private_memory) {
  char* p = Sparse();
  cr_expect(Runs(p, plat::FilePages::kReport) == (Pages{2, 5}));
  mprotect(p, kPages * kPage, PROT_NONE);
  cr_expect(Runs(p, plat::FilePages::kSkip) == (Pages{2, 5}), "protected pages are not seen");
}

Test(pagemap, one_range) {
  char* p = Sparse();
  Context c = {{}, reinterpret_cast<Addr>(p)};
  cr_expect(plat::ForEachWrittenToPageRun(c.base, 6 * kPage, Add, &c));
  cr_expect(c.pages == (Pages{2, 5}));
}

Test(pagemap, files) {
  int fd = memfd_create("pages", 0);
  cr_assert(fd >= 0 && ftruncate(fd, kPages * kPage) == 0);
  char* shared = Map(MAP_SHARED, fd);
  shared[3 * kPage] = shared[4 * kPage] = 1;
  cr_expect(Runs(shared, plat::FilePages::kReport) == (Pages{3, 4}));
  char* copy = Map(MAP_PRIVATE, fd);
  volatile char read = copy[3 * kPage];
  static_cast<void>(read);
  copy[4 * kPage] = 2;
  cr_expect(Runs(copy, plat::FilePages::kReport).count(3) == 1);
  cr_expect(Runs(copy, plat::FilePages::kSkip) == Pages{4});
}

Test(pagemap, holes_in_the_address_space) {
  char* p = Sparse();
  munmap(p + 3 * kPage, 2 * kPage);
  cr_expect(Runs(p, plat::FilePages::kReport) == (Pages{2, 5}));
}

Test(pagemap, is_present) {
  char* p = Sparse();
  plat::PageMap pages;
  cr_expect(pages.IsPresent(reinterpret_cast<Addr>(p) + 2 * kPage));
  cr_expect(not(pages.IsPresent(reinterpret_cast<Addr>(p) + 9 * kPage)));
  munmap(p, kPages * kPage);
  cr_expect(not(pages.IsPresent(reinterpret_cast<Addr>(p) + 2 * kPage)));
}

Test(pagemap, by_entries) {
  char* p = Sparse();
  const int calls[] = {SYS_ioctl};
  Forbid(calls, 1);
  bool told = false;
  Pages pages = Runs(p, plat::FilePages::kReport, &told);
  cr_expect(told && (pages == Pages{2, 5} || pages == Pages{2, 5, 7}));
}

Test(pagemap, not_dumpable) {
  char* p = Sparse();
  pid_t child = fork();
  if (child == 0) {
    if (getuid() == 0 && setuid(65534) != 0) _exit(2);
    prctl(PR_SET_DUMPABLE, 0);
    if (plat::PageMap().IsExact()) _exit(3);
    bool told = false;
    Pages pages = Runs(p, plat::FilePages::kReport, &told);
    _exit(told && (pages == Pages{2, 5} || pages == Pages{2, 5, 7}) ? 0 : 1);
  }
  int status = 0;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(status == 0, "status %x", static_cast<unsigned>(status));
}

Test(pagemap, no_source) {
  char* p = Sparse();
  const int calls[] = {SYS_ioctl, SYS_pread64, SYS_mincore};
  Forbid(calls, 3);
  bool told = true;
  cr_expect(Runs(p, plat::FilePages::kReport, &told).size() == kPages);
  cr_expect(not(told));
}
