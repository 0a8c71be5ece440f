// SPDX-License-Identifier: Apache-2.0
// Calls that change protection or mapping. They only matter where they touch the heap: then the
// collector is told before the kernel is (heap/careful.h).
#include <errno.h>
#include <sys/mman.h>

#include "gc/roots.h"
#include "gc/snapshot.h"
#include "heap/careful.h"
#include "heap/sweep.h"
#include "posix/posix.h"

namespace undergo::posix {

namespace {

constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kGuardInstall = 102;  // MADV_GUARD_INSTALL, Linux 6.13: faults like PROT_NONE

void BeforeChange(void* at, size_t size) {
  if (!heap::gc_heap.enabled) return;
  heap::MakeCareful(reinterpret_cast<Addr>(at), size);
}

// Rights that readers and later owners need are taken away.
bool Restricts(int prot) { return (prot & kReadWrite) != kReadWrite; }

void BeforeMap(void* at, size_t size, int flags) {
  if ((flags & MAP_FIXED) != 0) BeforeChange(at, size);
}

}  // namespace

void* mmap(void* at, size_t size, int prot, int flags, int fd, off_t offset) {
  if (real::mmap == nullptr) real::Resolve();
  BeforeMap(at, size, flags);
  return real::mmap(at, size, prot, flags, fd, offset);
}

void* mmap64(void* at, size_t size, int prot, int flags, int fd, off64_t offset) {
  if (real::mmap64 == nullptr) real::Resolve();
  BeforeMap(at, size, flags);
  return real::mmap64(at, size, prot, flags, fd, offset);
}

int munmap(void* at, size_t size) {
  if (real::munmap == nullptr) real::Resolve();
  BeforeChange(at, size);
  return real::munmap(at, size);
}

int mprotect(void* at, size_t size, int prot) {
  if (real::mprotect == nullptr) real::Resolve();
  if (Restricts(prot)) BeforeChange(at, size);
  gc::NoteProtection();
  return real::mprotect(at, size, prot);
}

int pkey_mprotect(void* at, size_t size, int prot, int key) {
  if (real::pkey_mprotect == nullptr) real::Resolve();
  if (Restricts(prot) || key > 0) BeforeChange(at, size);
  gc::NoteProtection();
  return real::pkey_mprotect(at, size, prot, key);
}

int madvise(void* at, size_t size, int advice) {
  if (real::madvise == nullptr) real::Resolve();
  // A child of fork has holes where memory was not inherited.
  if (advice == kGuardInstall || advice == MADV_DONTFORK) BeforeChange(at, size);
  if (advice == MADV_DONTFORK || advice == MADV_WIPEONFORK) {
    gc::NoteNotInherited(reinterpret_cast<Addr>(at), size);
  }
  return real::madvise(at, size, advice);
}

void* mremap(void* old, size_t old_size, size_t size, int flags, void* at) {
  if (real::mremap == nullptr) real::Resolve();
  BeforeChange(old, old_size);
  if ((flags & MREMAP_FIXED) != 0) BeforeChange(at, size);
  // libc reads the last parameter by the flags alone.
  return real::mremap(old, old_size, size, flags, at);
}

}  // namespace undergo::posix
