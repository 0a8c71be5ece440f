// SPDX-License-Identifier: Apache-2.0
// Dirty tracking: no write is missed, whoever writes, whatever happens to the mapping; loss of
// tracking is noticed.

#include "plat/dirty.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <set>

#include "plat/vm.h"
#include "seccomp.h"

using namespace undergo;

namespace {

constexpr size_t kPage = kOsPageSize;
constexpr size_t kPages = 64;
constexpr size_t kSize = kPages * kPage;

// The tracker outlives the test, as in the library.
constinit plat::DirtyTracker tracker;

void OpenOrSkip() {
  if (tracker.Open()) return;
  cr_log_warn("no dirty tracking here: %s", tracker.Reason());
  cr_skip_test("%s", tracker.Reason());
}

char* Map(size_t size = kSize, int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1) {
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  cr_assert(p != MAP_FAILED);
  return static_cast<char*>(p);
}

// Ordinary pages, all present.
char* MapFilled(size_t size = kSize) {
  char* p = Map(size);
  madvise(p, size, MADV_NOHUGEPAGE);
  memset(p, 1, size);
  return p;
}

Addr A(const void* p) { return reinterpret_cast<Addr>(p); }

using Pages = std::set<size_t>;

enum class By { kArmingAgain, kLooking, kLookingTwice };

// Numbers of the pages, from `p` on, that are reported.
Pages CollectBy(By by, const char* p, size_t size) {
  struct Context {
    Pages pages;
    Addr base;
  } c = {{}, A(p)};
  auto add = [](void* context, Addr from, Addr to) {
    auto* to_fill = static_cast<Context*>(context);
    for (Addr a = from; a < to; a += kPage) to_fill->pages.insert((a - to_fill->base) / kPage);
  };
  auto all = [](void*, Addr, Addr) { return true; };
  bool done = by == By::kLookingTwice
                  ? tracker.CollectDense(A(p), size, all, add, &c)
                  : tracker.Collect(A(p), size, by == By::kArmingAgain, add, &c);
  cr_expect(done, "%s", tracker.Reason());
  return c.pages;
}
Pages Collect(const char* p, bool rearm = true, size_t size = kSize) {
  return CollectBy(rearm ? By::kArmingAgain : By::kLooking, p, size);
}

// Criterion needs its descriptors: what closes them runs in a child, whose answer is returned.
bool InChild(bool (*body)()) {
  pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  cr_assert(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// From now on the calls fail with EPERM.
void Forbid(int call) {
  cr_assert(FilterCalls(&call, 1, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW, 0) == 0);
}

bool Arm(const char* p, size_t size = kSize) { return tracker.Arm(A(p), size); }

}  // namespace

Test(dirty, written_pages_and_no_others) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p), "%s", tracker.Reason());
  cr_expect(Collect(p).empty());
  p[3 * kPage + 17] = 1;
  p[63 * kPage] = 1;
  cr_expect(Collect(p, false) == (Pages{3, 63}));
  cr_expect(Collect(p, true) == (Pages{3, 63}), "looking without re-arming forgot them");
  cr_expect(Collect(p).empty());
  p[3 * kPage] = 2;
  cr_expect(Collect(p) == Pages{3});
  p[4 * kPage] = 2;
  cr_expect(Arm(p));
  cr_expect(Collect(p).empty(), "arming again starts anew");
}

// Huge and small pages, holes, untracked parts, ranges that begin and end anywhere.
Test(dirty, looking_twice_sees_the_same) {
  OpenOrSkip();
  constexpr size_t kMany = 40'000, kBytes = kMany * kPage;
  char* p = Map(kBytes);
  uint64_t random = 1;
  auto below = [&random](size_t n) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((random >> 33) % n);
  };
  auto touch = [&](size_t runs, size_t longest) {
    for (size_t i = 0; i < runs; ++i) {
      size_t from = below(kMany), end = Min(kMany, from + 1 + below(longest));
      for (size_t page = from; page < end; ++page) p[page * kPage] = 1;
    }
  };
  madvise(p, kBytes / 2, MADV_HUGEPAGE);
  touch(40, 2'000);
  cr_assert(Arm(p, kBytes / 4 * 3), "%s", tracker.Reason());
  for (int round = 0; round < 30; ++round) {
    touch(20, 30);
    size_t from = below(kMany), count = 1 + below(kMany - from);
    const char* at = p + from * kPage;
    Pages wanted = CollectBy(By::kLooking, at, count * kPage);
    cr_expect(CollectBy(By::kLookingTwice, at, count * kPage) == wanted, "%zu pages from %zu",
              count, from);
    if (round % 7 == 6) CollectBy(By::kArmingAgain, p, kBytes);
  }
  munmap(p, kBytes);
}

Test(dirty, part_of_a_mapping) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p + 8 * kPage, 8 * kPage));
  cr_expect(Collect(p + 8 * kPage, true, 8 * kPage).empty());
  cr_expect(Collect(p, false).size() == kPages - 8, "the untracked rest is not reported");
  p[10 * kPage] = 1;
  cr_expect(Collect(p + 8 * kPage, true, 8 * kPage) == Pages{2});
}

Test(dirty, the_kernel_writes) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  int fds[2];
  cr_assert(pipe(fds) == 0 && write(fds[1], "12345", 5) == 5);
  cr_expect(read(fds[0], p + 5 * kPage, 5) == 5, "a system call into an armed page fails");
  cr_expect(Collect(p) == Pages{5});
  cr_expect(memcmp(p + 5 * kPage, "12345", 5) == 0);
}

Test(dirty, new_pages_count_as_written) {
  OpenOrSkip();
  char* p = Map();
  madvise(p, kSize, MADV_NOHUGEPAGE);
  p[0] = p[2 * kPage] = 1;
  cr_assert(Arm(p));
  cr_expect(Collect(p).empty(), "pages that do not exist are reported");
  p[9 * kPage] = 1;
  cr_expect(Collect(p) == Pages{9});
  cr_expect(Collect(p).empty());
  cr_assert(madvise(p, kPage, MADV_DONTNEED) == 0);
  cr_expect(Collect(p).empty());
  p[0] = 1;
  cr_expect(Collect(p) == Pages{0});
}

Test(dirty, memory_mapped_anew) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  void* again = mmap(p + 4 * kPage, 2 * kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  cr_assert(again == p + 4 * kPage);
  p[4 * kPage] = 1;
  p[8 * kPage] = 1;
  cr_expect(Collect(p) == (Pages{4, 8}));
  cr_expect(Collect(p) == Pages{4}, "untracked pages are reported each time");
  cr_assert(Arm(p));
  cr_expect(Collect(p).empty());
}

Test(dirty, moved_memory) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  char* q = Map(2 * kSize);
  cr_assert(mremap(p, kSize, kSize, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
  cr_expect(Collect(q).size() == kPages);
  cr_expect(Collect(p).empty());
  cr_expect(not(Arm(p)), "armed what is not mapped");
}

Test(dirty, unmapped_holes) {
  OpenOrSkip();
  char* p = MapFilled();
  munmap(p + 10 * kPage, 10 * kPage);
  cr_assert(Arm(p), "%s", tracker.Reason());
  p[9 * kPage] = p[20 * kPage] = 1;
  cr_expect(Collect(p) == (Pages{9, 20}));
}

Test(dirty, protections_change) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  cr_assert(mprotect(p, 8 * kPage, PROT_NONE) == 0);
  cr_assert(mprotect(p, 4 * kPage, PROT_READ | PROT_WRITE) == 0);
  cr_expect(Collect(p).empty());
  p[2 * kPage] = 1;
  cr_expect(Collect(p) == Pages{2});
  cr_expect(Arm(p));
}

Test(dirty, shared_and_file_memory) {
  OpenOrSkip();
  int fd = memfd_create("dirty", 0);
  cr_assert(fd >= 0 && ftruncate(fd, kSize) == 0);
  char* shared = Map(kSize, MAP_SHARED, fd);
  char* copy = Map(kSize, MAP_PRIVATE, fd);
  memset(shared, 1, kSize);
  volatile char sum = 0;
  for (size_t i = 0; i < kSize; i += kPage) sum = static_cast<char>(sum + copy[i]);
  cr_assert(Arm(shared) && Arm(copy), "%s", tracker.Reason());
  shared[7 * kPage] = 1;
  copy[8 * kPage] = 1;
  cr_expect(Collect(shared) == Pages{7});
  cr_expect(Collect(copy) == Pages{8});
}

Test(dirty, huge_pages) {
  OpenOrSkip();
  constexpr size_t kHuge = 4 * kHugePageSize;
  char* raw = Map(kHuge + kHugePageSize);
  char* p = reinterpret_cast<char*>(AlignUp(A(raw), kHugePageSize));
  madvise(p, kHuge, MADV_HUGEPAGE);
  memset(p, 1, kHuge);
  cr_assert(Arm(p, kHuge));
  cr_expect(Collect(p, true, kHuge).empty());
  p[kHugePageSize + 5 * kPage] = 1;
  Pages written = Collect(p, true, kHuge);
  cr_expect(written.count(512 + 5) == 1 && written.size() <= 512);
  cr_expect(Collect(p, true, kHuge).empty());
}

// One write to a huge page must not make all of it count as written.
Test(dirty, huge_pages_are_split) {
  OpenOrSkip();
  constexpr size_t kLong = 64 * kMiB;
  char* raw = Map(kLong + 2 * kHugePageSize);
  char* p = reinterpret_cast<char*>(AlignUp(A(raw) + 1, kHugePageSize)) - 8 * kPage;
  madvise(raw, kLong + 2 * kHugePageSize, MADV_HUGEPAGE);
  memset(p, 1, kLong);
  cr_assert(Arm(p, kLong));
  for (size_t at : {size_t{0}, 5 * kMiB, 6 * kMiB + 100, kLong - 1}) p[at] = 2;
  cr_expect(Collect(p, true, kLong).size() == 4);
  cr_expect(Collect(p, true, kLong).empty());
}

Test(dirty, more_runs_than_one_call_returns) {
  OpenOrSkip();
  constexpr size_t kMany = 3000;
  char* p = MapFilled(kMany * kPage);
  cr_assert(Arm(p, kMany * kPage));
  Pages wanted;
  for (size_t i = 0; i < kMany; i += 2) {
    p[i * kPage] = 1;
    wanted.insert(i);
  }
  cr_expect(Collect(p, false, kMany * kPage) == wanted);
  cr_expect(Collect(p, true, kMany * kPage) == wanted);
  cr_expect(Collect(p, true, kMany * kPage).empty());
}

// Long, not aligned to anything, and mostly without pages: those that never existed or are gone
// count as little as those that were not written.
Test(dirty, long_and_sparse) {
  OpenOrSkip();
  constexpr size_t kLong = 300 * kMiB + 5 * kPage, kStep = 3 * kMiB / 2 + kPage;
  char* p = Map(kLong);
  for (size_t at = 0; at < kLong; at += kStep) p[at] = 1;
  cr_assert(Arm(p, kLong));
  Pages wanted;
  for (size_t at = 0; at < kLong; at += 3 * kStep) {
    p[at] = 2;
    wanted.insert(at / kPage);
  }
  for (size_t at = kStep; at < kLong; at += 6 * kStep)
    madvise(p + AlignDown(at, kPage), kPage, MADV_DONTNEED);
  p[kLong - 1] = 1;
  wanted.insert(kLong / kPage - 1);
  cr_expect(Collect(p, false, kLong) == wanted);
  cr_expect(Collect(p + kPage, false, kLong - kPage).size() == wanted.size() - 1);
  cr_expect(Collect(p, true, kLong) == wanted);
  cr_expect(Collect(p, true, kLong).empty());
  // A page in each huge page's worth of addresses, and in both halves of it.
  for (size_t at = 0; at < kLong; at += kMiB) p[at] = 3;
  cr_expect(Collect(p, true, kLong).size() == 301);
}

Test(dirty, disarm_and_unregister) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  tracker.Disarm(A(p), kSize);
  cr_expect(Collect(p, false).size() == kPages, "disarmed pages count as written");
  cr_assert(Arm(p));
  // A part that is not registered does not hide the rest.
  mmap(p + 2 * kPage, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
       0);
  tracker.Disarm(A(p), kSize);
  cr_expect(Collect(p, false).size() == kPages - 1);
  tracker.Unregister(A(p), kSize);
  cr_expect(Collect(p, true).size() == kPages - 1);
  cr_expect(Collect(p, true).size() == kPages - 1, "still tracked");
  cr_expect(Arm(p) && Collect(p).empty());
}

Test(dirty, the_program_uses_userfaultfd) {
  OpenOrSkip();
  char* p = MapFilled();
  long uffd = syscall(SYS_userfaultfd, O_CLOEXEC | 1);
  struct uffdio_api api = {UFFD_API, 0, 0};
  cr_assert(uffd >= 0 && ioctl(static_cast<int>(uffd), UFFDIO_API, &api) == 0);
  struct uffdio_register reg = {};
  reg.range = {A(p), 8 * kPage};
  reg.mode = UFFDIO_REGISTER_MODE_MISSING;
  cr_assert(ioctl(static_cast<int>(uffd), UFFDIO_REGISTER, &reg) == 0);
  cr_expect(not(Arm(p)));
  cr_expect(strstr(tracker.Reason(), "userfaultfd") != nullptr);
  cr_expect(Arm(p + 8 * kPage, kSize - 8 * kPage));
}

Test(dirty, canary) {
  cr_expect(not(tracker.CanaryOk()), "not opened");
  OpenOrSkip();
  for (int i = 0; i < 3; ++i) cr_expect(tracker.CanaryOk(), "%s", tracker.Reason());
}

Test(dirty, all_descriptors_closed) {
  OpenOrSkip();
  tracker.Close();
  cr_expect(InChild([] {
    static char* p = Map();
    memset(p, 1, kSize);
    bool ok = tracker.Open() && Arm(p);
    for (int fd = 3; fd < 4096; ++fd) close(fd);
    ok = ok && !tracker.CanaryOk() && strstr(tracker.Reason(), "closed") != nullptr && !Arm(p);
    auto none = [](void*, Addr, Addr) {};
    ok = ok && !tracker.Collect(A(p), kSize, true, none, nullptr);
    tracker.Close();
    ok = ok && tracker.Open() && Arm(p) && Collect(p).empty();
    p[kPage] = 1;
    return ok && Collect(p) == Pages{1};
  }));
}

Test(dirty, other_files_under_our_numbers) {
  OpenOrSkip();
  tracker.Close();
  cr_expect(InChild([] {
    int file = open("/dev/null", O_RDWR);
    bool ok = tracker.Open();
    int replaced = 0;
    for (int fd = 512; fd < 4096; ++fd) {
      if (fcntl(fd, F_GETFD) >= 0 && dup2(file, fd) == fd) ++replaced;
    }
    ok = ok && replaced == 2 && !tracker.CanaryOk();
    ok = ok && strstr(tracker.Reason(), "replaced") != nullptr;
    tracker.Close();
    for (int fd = 512; fd < 4096; ++fd) replaced -= fcntl(fd, F_GETFD) >= 0;
    return ok && replaced == 0;  // else it closed files of the program
  }));
}

Test(dirty, descriptors_are_high_and_end_at_exec) {
  OpenOrSkip();
  int found = 0;
  for (int fd = 0; fd < 4096; ++fd) {
    char link[64], target[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, target, sizeof target - 1) < 0) continue;
    if (strstr(target, "userfaultfd") == nullptr && strstr(target, "pagemap") == nullptr) continue;
    ++found;
    cr_expect(fd >= 512, "descriptor %d", fd);
    cr_expect((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  }
  cr_expect(found == 2);
}

Test(dirty, few_descriptors) {
  OpenOrSkip();
  tracker.Close();
  cr_expect(InChild([] {
    for (int fd = 3; fd < 4096; ++fd) close(fd);
    for (rlim_t left = 0; left < 3; ++left) {
      struct rlimit limit = {3 + left, 4096};
      setrlimit(RLIMIT_NOFILE, &limit);
      if (tracker.Open() != (left == 2)) return false;
      if (left < 2 && fcntl(3, F_GETFD) >= 0) return false;  // a failed Open kept a descriptor
    }
    return tracker.CanaryOk();
  }));
}

Test(dirty, child_after_fork) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  p[5 * kPage] = 1;
  pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) {
    bool ok = !tracker.CanaryOk() && !Arm(p);
    tracker.AbandonInChild();
    ok = ok && fcntl(1000, F_GETFD) < 0 && tracker.Open() && Arm(p) && Collect(p).empty();
    p[6 * kPage] = 1;
    ok = ok && Collect(p) == Pages{6};
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  cr_expect(tracker.CanaryOk());
  // After the fork a page may be reported that was not written, not the other way round.
  cr_expect(Collect(p).count(5) == 1);
  p[7 * kPage] = 1;
  cr_expect(Collect(p).count(7) == 1);
}

Test(dirty, filter_refuses) {
  Forbid(SYS_userfaultfd);
  cr_expect(not(tracker.Open()));
  cr_expect(strstr(tracker.Reason(), "seccomp") != nullptr);
}

Test(dirty, filter_comes_later) {
  OpenOrSkip();
  char* p = MapFilled();
  cr_assert(Arm(p));
  Forbid(SYS_ioctl);
  cr_expect(not(tracker.CanaryOk()));
  cr_expect(not(Arm(p)));
  tracker.Close();
  p[0] = 1;
}

// Writers and a collector at the same time: each value that a writer announced before a collection
// began is on a page that this or an earlier collection reported.
Test(dirty, nothing_is_lost_under_way) {
  OpenOrSkip();
  static char* p;
  static std::atomic<bool> stop;
  static std::atomic<uint64_t> announced[kPages];
  p = MapFilled();
  cr_assert(Arm(p));
  auto run = [](void* arg) -> void* {
    uint64_t seed = reinterpret_cast<Addr>(arg) + 1;
    for (uint64_t n = 1; !stop.load(); ++n) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      size_t page = (seed >> 33) % (kPages / 2) * 2 + reinterpret_cast<Addr>(arg);
      reinterpret_cast<std::atomic<uint64_t>*>(p + page * kPage)->store(n);
      announced[page].store(n);
    }
    return nullptr;
  };
  pthread_t threads[2];
  for (size_t i = 0; i < 2; ++i) {
    pthread_create(&threads[i], nullptr, run, reinterpret_cast<void*>(i));
  }
  uint64_t seen[kPages] = {};
  for (int round = 0; round < 20000; ++round) {
    uint64_t before[kPages];
    for (size_t i = 0; i < kPages; ++i) before[i] = announced[i].load();
    Pages written = Collect(p);
    for (size_t i : written) {
      seen[i] = reinterpret_cast<std::atomic<uint64_t>*>(p + i * kPage)->load();
    }
    for (size_t i = 0; i < kPages; ++i) {
      cr_assert(before[i] <= seen[i], "round %d: a write to page %zu was missed", round, i);
    }
  }
  stop = true;
  for (pthread_t t : threads) pthread_join(t, nullptr);
}
