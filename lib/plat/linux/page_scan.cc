// SPDX-License-Identifier: Apache-2.0
// PAGEMAP_SCAN in pieces.
#include "plat/linux/page_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "plat/syscall.h"

namespace undergo::plat {

namespace {

// Both as the kernel lays them out.
struct Region {
  uint64_t start, end, categories;
};
struct ScanRequest {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanRequest);

// Regions for each call, on the caller's stack: 6 KiB, which the collector's threads have. Threads
// of the program that assist may have little more than 16 KiB in all, and look at few pages.
constexpr size_t kManyRegions = 256;
constexpr size_t kFewRegions = 32;

// The kernel keeps the lock of the address space during a call: mmap and munmap of the program wait
// for it, and page faults behind those. So no call takes much longer than half a millisecond:
// looking costs 2 ns a page, protecting 10 to 20.
constexpr size_t kLookBytes = kGiB;
// A huge page is protected as one and stays one until the first write to it, which makes small
// pages of it, all protected but the written one. So pieces do not end inside of huge pages.
constexpr size_t kProtectBytes = 32 * kMiB;

// Not inlined: each caller pays for its own buffer alone.
template <size_t kRegions>
[[gnu::noinline]] long ScanBy(int pagemap, Addr from, Addr to, const PageScan& what,
                              void (*f)(void* context, Addr from, Addr to), void* context) {
  Region regions[kRegions];
  ScanRequest request = {};
  request.size = sizeof request;
  request.flags = what.flags;
  request.vec = reinterpret_cast<uint64_t>(&regions[0]);
  request.vec_len = kRegions;
  request.category_inverted = what.without;
  request.category_mask = what.all;
  request.category_anyof_mask = what.any;
  request.return_mask = what.returned;
  Addr run_from = 0, run_to = 0;  // joined over the ends of the pieces
  size_t piece = (what.flags & kScanProtect) != 0 ? kProtectBytes : kLookBytes;
  long result = 0;
  while (from < to) {
    request.start = from;
    request.end = PieceEnd(from, to, piece);
    result = Syscall(__NR_ioctl, pagemap, kPagemapScan, &request);
    if (IsError(result)) break;
    for (long i = 0; i < result; ++i) {
      if (regions[i].start == run_to) {
        run_to = regions[i].end;
        continue;
      }
      if (run_from != run_to && f != nullptr) f(context, run_from, run_to);
      run_from = regions[i].start;
      run_to = regions[i].end;
    }
    // Pages of 1 GiB cannot be protected: there the kernel says that it came to their start.
    if (request.walk_end <= from) {
      result = -EIO;
      break;
    }
    from = request.walk_end;
  }
  if (run_from != run_to && f != nullptr) f(context, run_from, run_to);
  return IsError(result) ? result : 0;
}

}  // namespace

long ScanPages(int pagemap, Addr from, Addr to, const PageScan& what,
               void (*f)(void* context, Addr from, Addr to), void* context) {
  // Every other page at most begins a run.
  bool few = (to - from) / kOsPageSize <= 2 * kFewRegions;
  return few ? ScanBy<kFewRegions>(pagemap, from, to, what, f, context)
             : ScanBy<kManyRegions>(pagemap, from, to, what, f, context);
}

long OpenPagemapFile() {
  return Syscall(__NR_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
}

}  // namespace undergo::plat
