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
// In the stop only the text of the mappings is read again. If it is the same as a moment before, so
// is the list: writable mappings are in it as a whole, and pages of anonymous ones are asked for
// again. That leaves private, protected mappings of regular files. To write to one of them, a
// program has to take the protection away and put it back, and such calls are counted. (Between
// the two lists it could do so by a bare system call, or through /proc/self/mem: that is not seen.)
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

constinit uint32_t protection_changes = 0;  // atomic

// Covered by ranges of ours, as the reservation of the heap, a terabyte to be looked through.
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
    if (!list->mapped_.Push(pattern)) failed = true;
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
    } else if (!m.shared && !memory) {
      pages->ForEachRun(m.start, m.end, plat::FilePages::kSkip, AddRun, this);
    } else if (!m.shared && !IsOwn(m.start, m.end)) {
      pattern.by_page = true;
      Add(m.start, m.end);
    }
  }
};

bool RangeArray::Reserve(size_t count) {
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

bool RangeArray::Push(RootRange r) {
  if (count_ != 0) r.from = Max(r.from, ranges_[count_ - 1].to);
  if (r.from >= r.to) return true;
  if (!Reserve(count_ + 1)) return false;
  ranges_[count_++] = r;
  return true;
}

bool RangeArray::Subtract(Addr from, Addr to) {
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

void RootList::ForgetMappings() {
  mapped_.Clear();
  has_io_uring_ = has_shared_memory_ = has_missed_module_ = has_direct_writer_ = false;
}

bool RootList::BuildFromText(const plat::PageMap& pages) {
  ForgetMappings();
  MapsVisitor visitor = {this, &pages, {}, false};
  text_.ForEach(MapsVisitor::Visit, &visitor);
  return !visitor.failed;
}

bool RootList::BuildFromSizes(const plat::PageMap& pages) {
  ForgetMappings();
  is_plain_ = false;
  MapsVisitor visitor = {this, &pages, {}, false};
  return plat::ForEachMapping(MapsVisitor::Visit, &visitor, plat::MapSource::kSizes) &&
         !visitor.failed;
}

// From the mappings to the list.
bool RootList::Expand(const plat::PageMap& pages) {
  struct Context {
    RangeArray* to;
    RootRange range;
    bool ok;
  } context = {&ranges_, {}, true};
  auto run = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    c->range.from = from;
    c->range.to = to;
    c->ok &= c->to->Push(c->range);
  };
  ranges_.Clear();
  for (size_t i = 0; i < mapped_.size() && context.ok; ++i) {
    const RootRange& r = mapped_[i];
    context.range = r;
    if (r.by_page) {
      auto files = r.file_pages ? plat::FilePages::kReport : plat::FilePages::kSkip;
      pages.ForEachRun(r.from, r.to, files, run, &context);
    } else {
      run(&context, r.from, r.to);
    }
  }
  // After the mappings: what became ours meanwhile holds nothing of the program any more.
  auto subtract = [](void* list, Addr from, Addr to) {
    return static_cast<RangeArray*>(list)->Subtract(from, to);
  };
  return context.ok && plat::ForEachOwnRange(subtract, &ranges_);
}

bool RootList::Build() {
  plat::PageMap pages;
  protections_ = LoadAcquire(&protection_changes);  // pairs: NoteProtection
  is_plain_ = pages.IsExact();
  bool ok = is_plain_ ? text_.Read() && BuildFromText(pages) : BuildFromSizes(pages);
  if (ok && is_plain_ && has_shared_memory_ && plat::SwapInUse()) ok = BuildFromSizes(pages);
  ok = ok && Expand(pages);
  if (!ok) ranges_.Clear();
  return ok;
}

bool RootList::Rebuild() {
  bool same = is_plain_ && !(has_shared_memory_ && plat::SwapInUse()) &&
              protections_ == LoadAcquire(&protection_changes) &&  // pairs: NoteProtection
              now_.Read() && now_ == text_;
  if (!same) return Build();
  plat::PageMap pages;
  if (Expand(pages)) return true;
  ranges_.Clear();
  return false;
}

void NoteProtection() { FetchAddAcqRel(&protection_changes, 1u); }  // pairs: Build, Rebuild

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

bool ReadBatch::Read(Addr from, Addr to) {
  constexpr size_t kShort = kReadBuffer / 4;
  size_t size = to - from;
  if (size > kShort || (from | to) % sizeof(uint64_t) != 0) {
    return Flush() && ReadRange(from, to, buffer_, f_, context_);
  }
  bool read = (count_ < kRanges && bytes_ + size <= kReadBuffer) || Flush();
  ranges_[count_++] = {reinterpret_cast<void*>(from), size};
  bytes_ += size;
  return read;
}

bool ReadBatch::Flush() {
  static_assert(sizeof(Range) == sizeof(struct iovec));
  uint32_t count = count_;
  size_t bytes = bytes_;
  count_ = 0;
  bytes_ = 0;
  if (count == 0) return true;
  struct iovec local = {buffer_, bytes};
  long r = plat::Syscall(__NR_process_vm_readv, plat::Syscall(__NR_getpid), &local, 1, ranges_,
                         count, 0);
  bool all = r == static_cast<long>(bytes), read = true;
  char* data = static_cast<char*>(buffer_);
  for (uint32_t i = 0; i < count; ++i) {
    auto at = reinterpret_cast<Addr>(ranges_[i].at);
    if (all) {
      f_(context_, data, at, ranges_[i].size);
      data += ranges_[i].size;
    } else {
      read &= ReadRange(at, at + ranges_[i].size, buffer_, f_, context_);
    }
  }
  return read;
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
