// SPDX-License-Identifier: Apache-2.0
// Pages that exist, from the best source that answers.
//
// 1. PAGEMAP_SCAN tells exactly and skips what is empty in large steps; it also passes over device
//    memory.
// 2. The entries of /proc/self/pagemap, 8 bytes for each page, for kernels before 6.7. The page of
//    zeros looks like any other.
// 3. mincore, for processes that may not open the file. It knows memory but not swap, and counts
//    whatever the page cache has of a mapped file.
#include "plat/pagemap.h"

#include <sys/sysinfo.h>

#include "plat/linux/page_scan.h"
#include "plat/syscall.h"

namespace undergo::plat {

namespace {

using Visitor = void (*)(void* context, Addr from, Addr to);

constexpr uint64_t kEntryFile = 1ull << 61;  // or shared anonymous
constexpr uint64_t kEntrySwapped = 1ull << 62;
constexpr uint64_t kEntryPresent = 1ull << 63;

// Joins single pages to runs.
class Runs {
 public:
  Runs(Visitor f, void* context) : f_(f), context_(context) {}
  ~Runs() { End(); }
  void Page(Addr page, bool wanted) {
    if (!wanted) return;
    if (page != to_) {
      End();
      from_ = page;
    }
    to_ = page + kOsPageSize;
  }

 private:
  void End() {
    if (from_ != to_) f_(context_, from_, to_);
    from_ = to_;
  }
  Visitor f_;
  void* context_;
  Addr from_ = 0;
  Addr to_ = 0;
};

// Reads up to `count` entries from `page` on; the number read, 0 at the end, below 0 on failure.
long ReadEntries(long fd, Addr page, uint64_t* entries, size_t count) {
  long n = Syscall(__NR_pread64, fd, entries, count * 8, page / kOsPageSize * 8);
  return n < 0 ? n : n / 8;
}

bool RunsByEntries(long fd, Addr from, Addr to, FilePages files, Visitor f, void* context) {
  constexpr size_t kEntries = 256;  // 2 KiB: threads with small stacks come here, too
  uint64_t entries[kEntries];
  uint64_t unwanted = files == FilePages::kSkip ? kEntryFile : 0;
  Runs runs(f, context);
  while (from < to) {
    long n = ReadEntries(fd, from, entries, Min(kEntries, (to - from) / kOsPageSize));
    if (n <= 0) return false;
    for (long i = 0; i < n; ++i, from += kOsPageSize) {
      bool exists = (entries[i] & (kEntryPresent | kEntrySwapped)) != 0;
      runs.Page(from, exists && (entries[i] & unwanted) == 0);
    }
  }
  return true;
}

bool RunsByMincore(Addr from, Addr to, Visitor f, void* context) {
  constexpr size_t kPages = 2048;
  unsigned char resident[kPages];
  Runs runs(f, context);
  while (from < to) {
    size_t pages = Min(kPages, (to - from) / kOsPageSize);
    long r = Syscall(__NR_mincore, from, pages * kOsPageSize, &resident[0]);
    if (IsError(r) && r != -12 /* ENOMEM: a part is not mapped */) return false;
    for (size_t i = 0; i < pages; ++i, from += kOsPageSize) {
      runs.Page(from, IsError(r) || (resident[i] & 1) != 0);
    }
  }
  return true;
}

}  // namespace

PageMap::PageMap() : fd_(OpenPagemapFile()) {}

PageMap::~PageMap() {
  if (fd_ >= 0) Syscall(__NR_close, fd_);
}

bool PageMap::ForEachRun(Addr from, Addr to, FilePages files, Visitor f, void* context) const {
  if (fd_ >= 0) {
    PageScan scan;
    scan.without = scan.all = kPageZero | (files == FilePages::kSkip ? kPageFile : 0);
    scan.any = kPagePresent | kPageSwapped;
    if (ScanPages(fd_, from, to, scan, f, context) == 0) return true;
    if (RunsByEntries(fd_, from, to, files, f, context)) return true;
  }
  if (RunsByMincore(from, to, f, context)) return true;
  f(context, from, to);
  return false;
}

bool PageMap::IsPresent(Addr page) const {
  uint64_t entry = 0;
  if (fd_ >= 0 && ReadEntries(fd_, page, &entry, 1) == 1) return (entry & kEntryPresent) != 0;
  unsigned char resident = 1;
  if (IsError(Syscall(__NR_mincore, page, kOsPageSize, &resident))) return false;
  return (resident & 1) != 0 || SwapInUse();
}

bool ForEachWrittenToPageRun(Addr from, size_t size, Visitor f, void* context) {
  PageMap pages;
  if (pages.IsExact() || !SwapInUse()) {
    return pages.ForEachRun(from, from + size, FilePages::kReport, f, context);
  }
  f(context, from, from + size);
  return false;
}

bool SwapInUse() {
  struct sysinfo info;
  return IsError(Syscall(__NR_sysinfo, &info)) || info.freeswap != info.totalswap;
}

}  // namespace undergo::plat
