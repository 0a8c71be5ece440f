// SPDX-License-Identifier: Apache-2.0
// Dirty tracking by asynchronous write-protection.
//
// A range that is registered with a userfaultfd in the mode WP_ASYNC can have write-protected
// pages whose first write faults into the kernel and nowhere else: the kernel takes the protection
// away and lets the write go on, whether the program wrote or a system call did for it.
// PAGEMAP_SCAN lists pages that are not protected and protects them again in one step, page table
// lock held, so that no write falls between reading and arming. UFFD_USER_MODE_ONLY makes all this
// available without privilege: no fault is ever delivered to user space.
//
// Only pages that exist are protected. Scanning with a condition on PRESENT or SWAPPED keeps the
// kernel from its shortcuts, which would leave markers in empty page table entries: these would
// look like swapped pages later on, and armed holes would cost page tables. A page that appears
// after arming is not protected, hence written: right, as it is new.
//
// What the kernel does to tracking, and what follows:
// * munmap, mremap and the end of the last descriptor end it. Collect reports present pages of
//   untracked mappings, so memory that was unmapped and mapped anew is seen.
// * fork leaves it with the parent. The descriptors that the child inherits speak about the
//   parent's memory; the process id is compared before each use of them.
// * Programs close all descriptors, or ours by number, and open files of their own in their place.
//   Both descriptors are recognised by device and inode.
// * Kernels before 6.9 leave page table bits behind when a userfaultfd is closed while pages are
//   protected. Such a page looks armed to a later userfaultfd but is not. After a second Open,
//   Arm takes all protection away first.
// * Mapped device memory and 1 GiB pages cannot be protected; the latter make Arm fail.
//
// Rejected: synchronous write-protection (a thread of ours would have to serve faults, and system
// calls that write fail with EFAULT under USER_MODE_ONLY), soft-dirty bits (no atomic read and
// clear, not in all kernels), mprotect (EFAULT in system calls, mappings split without end), and a
// first look for "written" alone, for which the kernel has a shorter way. It reports entries
// without a page, too, so where they are many, as between 10,000 stacks (the row `stop` of make
// bench-sched), both looks together took twice the time of the one.
#include "plat/dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/atomic.h"
#include "plat/linux/page_scan.h"
#include "plat/syscall.h"
#include "plat/vm.h"

namespace undergo::plat {

namespace {

constexpr uint64_t kUserModeOnly = 1;            // UFFD_USER_MODE_ONLY, Linux 5.11
constexpr uint64_t kWpUnpopulated = 1ull << 13;  // UFFD_FEATURE_WP_UNPOPULATED, Linux 6.4
constexpr uint64_t kWpAsync = 1ull << 15;        // UFFD_FEATURE_WP_ASYNC, Linux 6.7
constexpr size_t kDisarmBytes = 32 * kMiB;       // see kProtectBytes: 50 ns a page
constexpr PageScan kWrittenPages = {0, 0, kPageWritten, kPagePresent | kPageSwapped};
// Also entries without a page. In exactly this form the kernel asks for nothing but the bit: 1 ns a
// page instead of 3.
constexpr PageScan kMaybeWritten = {0, 0, kPageWritten, 0, kPageWritten};
constexpr PageScan kProtectWritten = {kScanProtect, 0, kPageWritten, kPagePresent | kPageSwapped};
constexpr PageScan kWrittenUntracked = {0, kPageWpAllowed, kPageWritten | kPageWpAllowed,
                                        kPagePresent | kPageSwapped};
constexpr PageScan kTrackedRanges = {0, 0, kPageWpAllowed, 0};

// Moves a new descriptor out of the way of the program's: programs count on small numbers, and
// some close the first dozens at start. Not above 1024: the kernel's table grows with the number.
int MoveHigh(long fd) {
  struct rlimit limit = {1024, 1024};
  Syscall(__NR_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
  long wanted = static_cast<long>(Min(limit.rlim_cur, 1024));
  for (wanted -= 16; wanted > fd; wanted /= 2) {
    long high = Syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, wanted);
    if (IsError(high)) continue;
    Syscall(__NR_close, fd);
    return static_cast<int>(high);
  }
  return static_cast<int>(fd);
}

bool Unprotect(int uffd, Addr from, Addr to) {
  while (from < to) {
    Addr end = PieceEnd(from, to, kDisarmBytes);
    struct uffdio_writeprotect request = {};
    request.range = {from, end - from};
    if (IsError(Syscall(__NR_ioctl, uffd, UFFDIO_WRITEPROTECT, &request))) return false;
    from = end;
  }
  return true;
}

}  // namespace

const char* DirtyTracker::Reason() const { return LoadRelaxed(&reason_); }

bool DirtyTracker::Fail(const char* reason) {
  StoreRelaxed(&reason_, reason);
  return false;
}

bool DirtyTracker::IdOf(int fd, FileId* id) {
  struct stat s;
  if (IsError(Syscall(__NR_fstat, fd, &s))) return false;
  *id = {s.st_dev, s.st_ino};
  return true;
}

// The descriptors are open, are the files that Open made, and speak about this process.
bool DirtyTracker::DescriptorsAreOurs() {
  FileId uffd, pagemap;
  if (uffd_ < 0) return Fail("not opened");
  if (Syscall(__NR_getpid) != pid_) return Fail("opened by another process");
  if (!IdOf(uffd_, &uffd) || !IdOf(pagemap_, &pagemap)) return Fail("descriptor was closed");
  if (uffd == uffd_id_ && pagemap == pagemap_id_) return true;
  return Fail("descriptor was replaced");
}

bool DirtyTracker::OpenUserfaultfd() {
  long fd = Syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK | static_cast<int>(kUserModeOnly));
  if (fd == -ENOSYS || fd == -EPERM) return Fail("userfaultfd is refused (seccomp or kernel)");
  if (fd == -EMFILE || fd == -ENFILE) return Fail("no descriptor is left");
  if (IsError(fd)) return Fail("userfaultfd failed");
  struct uffdio_api api = {};
  api.api = UFFD_API;
  api.features = kWpAsync | kWpUnpopulated;
  if (IsError(Syscall(__NR_ioctl, fd, UFFDIO_API, &api))) {
    Syscall(__NR_close, fd);
    return Fail("the kernel has no asynchronous write-protection (before 6.7)");
  }
  uffd_ = MoveHigh(fd);
  return IdOf(uffd_, &uffd_id_) || Fail("fstat is refused");
}

bool DirtyTracker::OpenPagemap() {
  long fd = OpenPagemapFile();
  if (fd == -EACCES) return Fail("/proc/self/pagemap is refused (process is not dumpable)");
  if (fd == -EMFILE || fd == -ENFILE) return Fail("no descriptor is left");
  if (IsError(fd)) return Fail("/proc/self/pagemap cannot be opened");
  pagemap_ = MoveHigh(fd);
  return IdOf(pagemap_, &pagemap_id_) || Fail("fstat is refused");
}

bool DirtyTracker::Open() {
  if (uffd_ >= 0) return true;
  if (canary_ == 0) canary_ = reinterpret_cast<Addr>(MapPages(kOsPageSize));
  if (canary_ == 0) return Fail("no memory");
  *reinterpret_cast<volatile char*>(canary_) = 1;
  pid_ = Syscall(__NR_getpid);
  if (OpenUserfaultfd() && OpenPagemap() && Arm(canary_, kOsPageSize) && CanaryOk()) {
    ++opened_;
    return true;
  }
  Close();
  return false;
}

void DirtyTracker::CloseDescriptors() {
  FileId id;
  if (uffd_ >= 0 && IdOf(uffd_, &id) && id == uffd_id_) Syscall(__NR_close, uffd_);
  if (pagemap_ >= 0 && IdOf(pagemap_, &id) && id == pagemap_id_) Syscall(__NR_close, pagemap_);
  uffd_ = pagemap_ = -1;
}

void DirtyTracker::Close() {
  if (uffd_ >= 0 && armed_) reopened_ = true;
  armed_ = false;
  CloseDescriptors();
}

void DirtyTracker::AbandonInChild() {
  CloseDescriptors();
  reopened_ = armed_ = false;  // the kernel copied page tables without protection
}

bool DirtyTracker::Register(Addr from, size_t size) {
  if (!DescriptorsAreOurs()) return false;
  struct uffdio_register request = {};
  request.range = {from, size};
  request.mode = UFFDIO_REGISTER_MODE_WP;
  // Costs little when it is registered, and tells when it is no longer or belongs to another.
  long r = Syscall(__NR_ioctl, uffd_, UFFDIO_REGISTER, &request);
  if (r == -EBUSY) return Fail("the program uses userfaultfd itself");
  if (r == -ENOMEM || r == -EINVAL) return Fail("memory is no longer mapped");
  if (IsError(r)) return Fail("memory cannot be registered");
  armed_ |= from != canary_;
  return true;
}

bool DirtyTracker::Extend(Addr from, size_t size) {
  if (!Register(from, size)) return false;
  if (reopened_) Disarm(from, size);
  return true;
}

bool DirtyTracker::Arm(Addr from, size_t size, RangeVisitor f, void* context) {
  return Extend(from, size) && Protect(from, size, f, context);
}

bool DirtyTracker::ArmAgain(Addr from, size_t size, RangeVisitor f, void* context) {
  return Register(from, size) && Protect(from, size, f, context);
}

bool DirtyTracker::Protect(Addr from, size_t size, RangeVisitor f, void* context) {
  PageScan scan = kProtectWritten;
  scan.flags |= kScanCheck;
  long r = ScanPages(pagemap_, from, from + size, scan, f, context);
  if (r == 0) return true;
  return Fail(r == -EPERM ? "memory was mapped anew" : "PAGEMAP_SCAN failed");
}

bool DirtyTracker::Collect(Addr from, size_t size, bool rearm, RangeVisitor f, void* context) {
  long r;
  if (rearm) {
    if (!DescriptorsAreOurs()) return false;
    // Skips what is not tracked, so that is a second look.
    r = ScanPages(pagemap_, from, from + size, kProtectWritten, f, context);
    if (r == 0) r = ScanPages(pagemap_, from, from + size, kWrittenUntracked, f, context);
  } else {
    r = ScanPages(pagemap_, from, from + size, kWrittenPages, f, context);
  }
  return r == 0 || Fail("PAGEMAP_SCAN failed");
}

// The first look is for "written" alone, which pages that are not there seem to be as well; the
// second at the runs that it saw. A gap that takes less than a request is looked at again, too.
bool DirtyTracker::CollectDense(Addr from, size_t size, RangeFilter matters, RangeVisitor f,
                                void* context) {
  constexpr uint32_t kRuns = 32;
  constexpr size_t kGap = 256 * kOsPageSize;
  struct Seen {
    struct {
      Addr from, to;
    } runs[kRuns];
    uint32_t count = 0;
    RangeFilter matters;
    void* context;
  } seen;
  seen.matters = matters;
  seen.context = context;
  auto note = [](void* p, Addr a, Addr b) {
    auto* seen = static_cast<Seen*>(p);
    if (!seen->matters(seen->context, a, b)) return;
    uint32_t n = seen->count;
    if (n != 0 && (n == kRuns || a - seen->runs[n - 1].to < kGap)) {
      seen->runs[n - 1].to = b;
    } else {
      seen->runs[seen->count++] = {a, b};
    }
  };
  long r = ScanPages(pagemap_, from, from + size, kMaybeWritten, note, &seen);
  for (uint32_t i = 0; i < seen.count && r == 0; ++i) {
    r = ScanPages(pagemap_, seen.runs[i].from, seen.runs[i].to, kWrittenPages, f, context);
  }
  return r == 0 || Fail("PAGEMAP_SCAN failed");
}

void DirtyTracker::Disarm(Addr from, size_t size) {
  if (!DescriptorsAreOurs() || Unprotect(uffd_, from, from + size)) return;
  // The kernel stops at the first part that is not registered: part by part, then.
  auto disarm = [](void* uffd, Addr a, Addr b) { Unprotect(*static_cast<int*>(uffd), a, b); };
  ScanPages(pagemap_, from, from + size, kTrackedRanges, disarm, &uffd_);
}

void DirtyTracker::Unregister(Addr from, size_t size) {
  // Would take the protection away as well, but under the lock that stops all page faults.
  Disarm(from, size);
  if (!DescriptorsAreOurs()) return;
  struct uffdio_range range = {from, size};
  Syscall(__NR_ioctl, uffd_, UFFDIO_UNREGISTER, &range);
}

bool DirtyTracker::ArmCanary() {
  if (!DescriptorsAreOurs()) return false;
  PageScan arm = kProtectWritten;
  arm.flags |= kScanCheck;
  bool armed = ScanPages(pagemap_, canary_, canary_ + kOsPageSize, arm, nullptr, nullptr) == 0;
  return armed || Fail("PAGEMAP_SCAN is refused");
}

bool DirtyTracker::CanaryHeld() {
  if (!DescriptorsAreOurs()) return false;
  size_t written = 0;
  auto count = [](void* context, Addr from, Addr to) {
    *static_cast<size_t*>(context) += to - from;
  };
  Addr end = canary_ + kOsPageSize;
  if (ScanPages(pagemap_, canary_, end, kWrittenPages, count, &written) != 0) {
    return Fail("PAGEMAP_SCAN is refused");
  }
  if (written != 0) return Fail("pages are not write-protected");
  auto* page = reinterpret_cast<volatile char*>(canary_);
  *page = static_cast<char>(*page + 1);
  if (ScanPages(pagemap_, canary_, end, kWrittenPages, count, &written) != 0 || written == 0) {
    return Fail("writes are not noticed");
  }
  return true;
}

}  // namespace undergo::plat
