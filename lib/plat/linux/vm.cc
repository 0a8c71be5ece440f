// SPDX-License-Identifier: Apache-2.0
// Address space and pages by raw system calls.
#include "plat/vm.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "plat/own_ranges.h"
#include "plat/syscall.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace undergo::plat {

constinit FailureHook vm_failure_hook = nullptr;

namespace {

bool Injected() { return vm_failure_hook != nullptr && vm_failure_hook(); }

void* Map(Addr at, size_t size, int prot, int flags) {
  if (Injected()) return nullptr;
  long r = Syscall(__NR_mmap, at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (IsError(r)) return nullptr;
  AddOwnRange(static_cast<Addr>(r), size);
  return reinterpret_cast<void*>(r);
}

bool IsLimited(int what) {
  struct rlimit limit;
  long r = Syscall(__NR_prlimit64, 0, what, nullptr, &limit);
  return !IsError(r) && limit.rlim_cur != RLIM_INFINITY;
}

}  // namespace

void* Reserve(size_t size, Addr hint) { return Map(hint, size, PROT_NONE, MAP_NORESERVE); }

void* ReserveReadable(size_t size, Addr hint) { return Map(hint, size, PROT_READ, MAP_NORESERVE); }

bool Commit(Addr at, size_t size) {
  if (Injected()) return false;
  return !IsError(Syscall(__NR_mprotect, at, size, PROT_READ | PROT_WRITE));
}

bool MapAt(Addr at, size_t size) {
  void* p = Map(at, size, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
  if (p == nullptr) return false;
  if (reinterpret_cast<Addr>(p) == at) return true;
  Unmap(reinterpret_cast<Addr>(p), size);  // kernels before 4.17 take the flag for a hint
  return false;
}

void* MapPages(size_t size) { return Map(0, size, PROT_READ | PROT_WRITE, 0); }

void* MapShared(size_t size) {
  if (Injected()) return nullptr;
  long r = Syscall(__NR_mmap, nullptr, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (IsError(r)) return nullptr;
  AddOwnRange(static_cast<Addr>(r), size);
  return reinterpret_cast<void*>(r);
}

bool MoveOver(Addr from, Addr to, size_t size) {
  RemoveOwnRange(from, size);  // what is at `to` has been entered
  return !IsError(Syscall(__NR_mremap, from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to));
}

void Unmap(Addr at, size_t size) {
  RemoveOwnRange(at, size);  // first: the program may map something there at once
  Syscall(__NR_munmap, at, size);
}

bool Discard(Addr at, size_t size) {
  return !IsError(Syscall(__NR_madvise, at, size, MADV_DONTNEED));
}

bool DiscardLazily(Addr at, size_t size) {
  return !IsError(Syscall(__NR_madvise, at, size, MADV_FREE));
}

bool AdviseHugePages(Addr at, size_t size, bool wanted) {
  return !IsError(Syscall(__NR_madvise, at, size, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
}

bool IsMapped(Addr at, size_t size) {
  Addr first = AlignDown(at, kOsPageSize);
  unsigned char resident[16];
  for (Addr page = first; page < at + size; page += sizeof resident * kOsPageSize) {
    size_t bytes = Min(sizeof resident * kOsPageSize, AlignUp(at + size, kOsPageSize) - page);
    if (IsError(Syscall(__NR_mincore, page, bytes, &resident[0]))) return false;
  }
  return true;
}

bool SafeRead(Addr from, void* to, size_t size) {
  struct iovec local = {to, size};
  struct iovec remote = {reinterpret_cast<void*>(from), size};
  long pid = Syscall(__NR_getpid);
  return Syscall(__NR_process_vm_readv, pid, &local, 1, &remote, 1, 0) == static_cast<long>(size);
}

size_t ResidentBytes() {
  long fd = Syscall(__NR_openat, AT_FDCWD, "/proc/self/statm", O_RDONLY | O_CLOEXEC, 0);
  if (IsError(fd)) return 0;
  char text[128];
  long n = Syscall(__NR_read, fd, text, sizeof text);
  Syscall(__NR_close, fd);
  long at = 0;
  while (at < n && text[at] != ' ') ++at;  // the first number is the address space
  size_t pages = 0;
  for (++at; at < n && text[at] >= '0' && text[at] <= '9'; ++at) {
    pages = pages * 10 + static_cast<size_t>(text[at] - '0');
  }
  return pages * kOsPageSize;
}

bool AddressSpaceLimited() { return IsLimited(RLIMIT_AS); }
bool DataLimited() { return IsLimited(RLIMIT_DATA); }

}  // namespace undergo::plat
