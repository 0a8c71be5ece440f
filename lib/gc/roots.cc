// SPDX-License-Identifier: Apache-2.0
// Root ranges: which memory outside the heap is searched for pointers, and how it is read.
//
// Everything that the program can have written is a root: data of all modules, stacks, thread
// blocks, its own mappings and shared memory. Asking the loader for data segments (what most
// conservative collectors do) would miss the main thread's TLS, arenas that programs map for
// themselves, and JIT code. So the list of mappings decides, and the page tables tell which pages
// of them were ever written.
//
//   mapping                                      in the list
//   writable                                     whole
//   private, not writable (text, relro, guards)  runs of pages that differ from the file
//   shared memory without a regular file         whole, whatever its protection
//   shared, of a regular file, not writable      no: nobody here writes it
//   devices, vdso, vvar, vsyscall                no
//   own ranges                                   no, to the page
//
// Devices: reading memory of a device can have side effects. The kernel itself refuses to copy from
// it (VM_IO, VM_PFNMAP) and PAGEMAP_SCAN passes over it, so a device cannot be read by accident;
// leaving device files out by name only spares cycles that would be abandoned over them.
//
// Pages in swap: page table entries name those of private memory. Shared memory has none while it
// is swapped out, and reading it whole to find out would fill its holes. So when the machine swaps
// and the process has shared memory, /proc/self/smaps is asked which mappings are concerned, and
// these are read whole. It also serves processes that may not read their page tables (not
// dumpable): mincore then stands for the page tables and knows no swap at all.
//
// A mapping may vanish while it is read, and a fault in a collector thread would kill the program.
// So nothing is read directly: process_vm_readv on ourselves copies 5 GB/s and stops at holes. It
// obeys protection; pages that the program protected against itself are read through
// /proc/self/mem. A page that exists and that neither can read fails the call: never guess.
#include "gc/roots.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "gc/kernel_roots.h"
#include "plat/lines.h"
#include "plat/maps.h"
#include "plat/own_ranges.h"
#include "plat/pagemap.h"
#include "plat/syscall.h"
#include "plat/vm.h"

namespace undergo::gc {

constinit ModuleHook is_missed_module = nullptr;

namespace {

using plat::IsError;

bool StartsWith(const char* s, const char* prefix) { return plat::SkipPrefix(&s, prefix); }

// Files that only stand for memory: their pages change with the process, not with a disk.
bool IsSharedMemory(const char* path) {
  return path[0] == '\0' || path[0] == '[' || StartsWith(path, "/memfd:") ||
         StartsWith(path, "/dev/zero") || StartsWith(path, "/dev/shm/") ||
         StartsWith(path, "/SYSV") || StartsWith(path, "/anon_hugepage");
}

bool IsDevice(const char* path) {
  if (StartsWith(path, "/sys/") || StartsWith(path, "/proc/")) return true;
  if (!StartsWith(path, "/dev/") || IsSharedMemory(path)) return false;
  struct stat s;
  if (IsError(plat::Syscall(__NR_newfstatat, AT_FDCWD, path, &s, 0))) return false;
  return S_ISCHR(s.st_mode);  // block devices are mapped as any file is
}

constexpr size_t kLongMapping = 64 * kMiB;

// Covered by ranges of ours. The reservation of the heap has a terabyte to be looked through.
bool IsOwn(Addr from, Addr to) {
  auto step = [](void* at, Addr low, Addr high) {
    auto* a = static_cast<Addr*>(at);
    if (low > *a || high <= *a) return true;
    *a = high;
    return false;
  };
  while (from < to) {
    if (plat::ForEachOwnRange(step, &from)) return false;
  }
  return true;
}

bool IsOfKernel(const char* path) { return StartsWith(path, "[v"); }  // vdso, vvar, vsyscall

}  // namespace

// What Build needs while it walks through the mappings.
struct MapsVisitor {
  RootList* list;
  const plat::PageMap* pages;
  RootRange pattern;  // of the runs of the current mapping
  bool failed;

  void Add(Addr from, Addr to) {
    pattern.from = from;
    pattern.to = to;
    if (!list->Push(pattern)) failed = true;
  }
  static void AddRun(void* self, Addr from, Addr to) {
    static_cast<MapsVisitor*>(self)->Add(from, to);
  }
  static bool Visit(void* self, const plat::Mapping& m) {
    static_cast<MapsVisitor*>(self)->Visit(m);
    return !static_cast<MapsVisitor*>(self)->failed;
  }

  void Visit(const plat::Mapping& m) {
    bool exact = pages->IsExact();
    if (StartsWith(m.path, "anon_inode:[io_uring]")) list->has_io_uring_ = true;
    list->has_direct_writer_ |= StartsWith(m.path, "socket:[") || WritesDirectly(m.path);
    if (m.executable && m.path[0] == '/' && is_missed_module != nullptr) {
      list->has_missed_module_ |= is_missed_module(m.start, m.path);
    }
    if (IsOfKernel(m.path) || IsDevice(m.path)) return;
    bool memory = IsSharedMemory(m.path);
    pattern = {};
    pattern.writable = m.writable;
    pattern.readable = m.readable;
    pattern.shared = m.shared;
    pattern.bytewise = m.executable && memory;
    // A private view of a memfd shows what others write into the memfd.
    pattern.file_pages = m.shared || (memory && m.path[0] == '/');
    pattern.swapped = m.swapped != 0 && (!exact || m.shared);
    if (m.shared && memory) list->has_shared_memory_ = true;
    if (m.writable || (m.shared && memory)) {
      Add(m.start, m.end);
    } else if (!m.shared && !exact && !pattern.file_pages) {
      if (m.anonymous + m.swapped != 0) Add(m.start, m.end);
    } else if (!m.shared && (m.end - m.start < kLongMapping || !IsOwn(m.start, m.end))) {
      auto files = pattern.file_pages ? plat::FilePages::kReport : plat::FilePages::kSkip;
      pages->ForEachRun(m.start, m.end, files, AddRun, this);
    }
  }
};

bool RootList::Reserve(size_t count) {
  if (count <= capacity_) return true;
  size_t bytes = Max(capacity_ * sizeof(RootRange) * 2, 64 * kKiB);
  bytes = Max(bytes, AlignUp(count * sizeof(RootRange), kOsPageSize));
  auto* fresh = static_cast<RootRange*>(plat::MapPages(bytes));
  if (fresh == nullptr) return false;
  if (ranges_ != nullptr) {
    __builtin_memcpy(fresh, ranges_, count_ * sizeof(RootRange));
    plat::Unmap(reinterpret_cast<Addr>(ranges_), capacity_ * sizeof(RootRange));
  }
  ranges_ = fresh;
  capacity_ = bytes / sizeof(RootRange);
  return true;
}

// Mappings that changed while the list was read may overlap the one before.
bool RootList::Push(RootRange r) {
  if (count_ != 0) r.from = Max(r.from, ranges_[count_ - 1].to);
  if (r.from >= r.to) return true;
  if (!Reserve(count_ + 1)) return false;
  ranges_[count_++] = r;
  return true;
}

bool RootList::Read(const plat::PageMap& pages, plat::MapSource source) {
  count_ = 0;
  has_io_uring_ = has_shared_memory_ = has_missed_module_ = has_direct_writer_ = false;
  MapsVisitor visitor = {this, &pages, {}, false};
  return plat::ForEachMapping(MapsVisitor::Visit, &visitor, source) && !visitor.failed;
}

bool RootList::Build() {
  plat::PageMap pages;
  bool exact = pages.IsExact();
  bool ok = Read(pages, exact ? plat::MapSource::kPlain : plat::MapSource::kSizes);
  if (ok && exact && has_shared_memory_ && plat::SwapInUse()) {
    ok = Read(pages, plat::MapSource::kSizes);
  }
  // After the mappings: what became ours meanwhile holds nothing of the program any more.
  auto subtract = [](void* list, Addr from, Addr to) {
    return static_cast<RootList*>(list)->Subtract(from, to);
  };
  ok = ok && plat::ForEachOwnRange(subtract, this);
  if (!ok) count_ = 0;
  return ok;
}

bool RootList::Subtract(Addr from, Addr to) {
  size_t low = 0, high = count_;  // the first range that ends above `from`
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (ranges_[middle].to > from) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  size_t first = low;
  if (first == count_ || ranges_[first].from >= to || from >= to) return true;
  if (ranges_[first].from < from) {
    RootRange tail = ranges_[first];
    if (tail.to > to) {
      if (!Reserve(count_ + 1)) return false;
      __builtin_memmove(ranges_ + first + 1, ranges_ + first, (count_ - first) * sizeof(RootRange));
      ++count_;
      ranges_[first + 1].from = to;
    }
    ranges_[first++].to = from;
  }
  size_t last = first;  // the first range that keeps something
  while (last < count_ && ranges_[last].to <= to) ++last;
  if (last < count_ && ranges_[last].from < to) ranges_[last].from = to;
  __builtin_memmove(ranges_ + first, ranges_ + last, (count_ - last) * sizeof(RootRange));
  count_ -= last - first;
  return true;
}

namespace {

// The two ways to copy memory that may not be there. Both return the number of bytes copied, which
// ends at the first page that cannot be read, or minus an error number.
class Reader {
 public:
  Reader() : pid_(plat::Syscall(__NR_getpid)) {}
  ~Reader() {
    if (mem_ >= 0) plat::Syscall(__NR_close, mem_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  long Copy(Addr from, void* to, size_t n) {
    struct iovec local = {to, n};
    struct iovec remote = {reinterpret_cast<void*>(from), n};
    return plat::Syscall(__NR_process_vm_readv, pid_, &local, 1, &remote, 1, 0);
  }

  long CopyProtected(Addr from, void* to, size_t n) {
    if (mem_ < 0) {
      mem_ = plat::Syscall(__NR_openat, AT_FDCWD, "/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
    }
    return mem_ < 0 ? mem_ : plat::Syscall(__NR_pread64, mem_, to, n, from);
  }

 private:
  long pid_;
  long mem_ = -1;
};

struct FirstRun {
  Addr from, to;
};

// One walk over a range: where it stands and what it needs.
class RangeWalk {
 public:
  // Without `pages` they are opened when an obstacle makes them necessary.
  RangeWalk(const plat::PageMap* pages, void* buffer, size_t buffer_size, ChunkVisitor f,
            void* context)
      : pages_(pages), buffer_(buffer), buffer_size_(buffer_size), f_(f), context_(context) {}

  bool Read(Addr from, Addr to) {
    Addr at = from;
    while (at < to) {
      size_t n = Min(to - at, buffer_size_);
      long r = reader_.Copy(at, buffer_, n);
      if (r <= 0) {
        bool passed = pages_ != nullptr ? PassObstacle(*pages_, &at, to)
                                        : PassObstacle(plat::PageMap(), &at, to);
        if (!passed) return false;
        continue;
      }
      auto got = static_cast<size_t>(r);
      f_(context_, buffer_, at, got);
      at += got;
      if (got == n && at < to) at -= sizeof(uint64_t);
    }
    return true;
  }

 private:
  // `*at` cannot be copied: nothing there, a guard, or memory that the program protected. Goes on
  // to where something may be.
  bool PassObstacle(const plat::PageMap& pages, Addr* at, Addr to) {
    Addr page = AlignDown(*at, kOsPageSize);
    FirstRun run = {0, 0};
    auto first = [](void* context, Addr from, Addr end) {
      auto* run = static_cast<FirstRun*>(context);
      if (run->to == 0) *run = {from, end};
    };
    Addr end = AlignUp(Min(to, page + kStep), kOsPageSize);
    pages.ForEachRun(page, end, plat::FilePages::kReport, first, &run);
    if (run.to == 0 || run.from > *at) {
      *at = run.to == 0 ? Min(to, end) : run.from;
      return true;
    }
    size_t n = Min(Min(run.to, to) - *at, buffer_size_);
    long r = CopyStubborn(pages, *at, n);
    if (r <= 0) {
      *at = page + kOsPageSize;
      return r == 0;
    }
    auto got = static_cast<size_t>(r);
    f_(context_, buffer_, *at, got);
    *at += got;
    if (got == buffer_size_ && *at < to) *at -= sizeof(uint64_t);
    return true;
  }

  // Guard markers and poisoned pages look swapped, and nobody can read those: 0. A page that is in
  // memory and refuses both ways exists, or others change the mapping just now: below 0 when it
  // goes on refusing.
  long CopyStubborn(const plat::PageMap& pages, Addr at, size_t n) {
    for (int attempt = 0; attempt < 8; ++attempt) {
      long r = reader_.CopyProtected(at, buffer_, n);
      if (r <= 0) r = reader_.Copy(at, buffer_, n);
      if (r > 0) return r;
      if (!pages.IsPresent(AlignDown(at, kOsPageSize))) return 0;
    }
    return -1;
  }

  static constexpr size_t kStep = kGiB;  // of the search behind a hole

  const plat::PageMap* pages_;
  void* buffer_;
  size_t buffer_size_;
  ChunkVisitor f_;
  void* context_;
  Reader reader_;
};

struct RootWalk {
  RangeWalk* walk;
  Addr from, to;  // of the range
  bool ok;

  static void Run(void* self, Addr from, Addr to) {
    auto* w = static_cast<RootWalk*>(self);
    w->ok = w->walk->Read(Max(from, w->from), Min(to, w->to)) && w->ok;
  }
};

}  // namespace

bool ReadRange(Addr from, Addr to, void* buffer, ChunkVisitor f, void* context,
               size_t buffer_size) {
  return RangeWalk(nullptr, buffer, buffer_size, f, context).Read(from, to);
}

bool ReadRoot(const plat::PageMap& pages, const RootRange& r, void* buffer, ChunkVisitor f,
              void* context) {
  if (r.swapped) return ReadRange(r.from, r.to, buffer, f, context);
  RangeWalk walk(&pages, buffer, kReadBuffer, f, context);
  RootWalk root = {&walk, r.from, r.to, true};
  auto files = r.file_pages ? plat::FilePages::kReport : plat::FilePages::kSkip;
  pages.ForEachRun(AlignDown(r.from, kOsPageSize), AlignUp(r.to, kOsPageSize), files, RootWalk::Run,
                   &root);
  return root.ok;
}

bool ReadRoot(const RootRange& r, void* buffer, ChunkVisitor f, void* context) {
  return ReadRoot(plat::PageMap(), r, buffer, f, context);
}

}  // namespace undergo::gc
