// SPDX-License-Identifier: Apache-2.0
// Where the program may keep pointers outside the heap: a snapshot of the root ranges, and a way
// to read them that no unmapping by the program can turn into a fault.
#pragma once

#include "base/types.h"

namespace undergo::gc {

struct RootRange {
  Addr from, to;
  bool writable;
  bool bytewise;  // executable anonymous memory: pointers at every byte offset (JIT code)
  bool shared;
  bool readable;  // false: only /proc/self/mem reads it
};

// The snapshot. Sorted by address, without overlaps. One thread builds and changes it.
class RootList {
 public:
  // Reads /proc/self/maps. In the list: writable mappings, and of the other private mappings the
  // pages that differ from their file. Not in it: the library's own ranges (the heap among them),
  // devices, what the kernel maps for itself. False when the mappings cannot be read or storage is
  // refused; the list is empty then.
  bool Build();
  // Takes a range out, for example what lies below a stack pointer. False when storage is refused.
  bool Subtract(Addr from, Addr to);

  size_t size() const { return count_; }
  const RootRange& operator[](size_t i) const { return ranges_[i]; }

 private:
  bool Reserve(size_t count);
  bool Push(const RootRange& r);

  RootRange* ranges_ = nullptr;  // own pages, kept from cycle to cycle
  size_t count_ = 0;
  size_t capacity_ = 0;
};

inline constexpr size_t kReadBuffer = 64 * kKiB;

// f(context, data, address, n): n bytes at `data` are what stands at `address`. n is at most
// kReadBuffer; address and n are multiples of 8 if the range's ends are.
using ChunkVisitor = void (*)(void* context, const void* data, Addr address, size_t n);

// Copies the range piece by piece into `buffer` (kReadBuffer bytes) and shows the pieces. What is
// not mapped (any more) is left out. Memory without read permission is read through
// /proc/self/mem. False when some mapped part could not be read.
bool ReadRange(Addr from, Addr to, void* buffer, ChunkVisitor f, void* context);

// The same for those pages of the range that can hold something (plat/pagemap.h): never touches
// pages that do not exist yet, and skips unchanged pages of files.
bool ReadWrittenPages(Addr from, Addr to, void* buffer, ChunkVisitor f, void* context);

}  // namespace undergo::gc
