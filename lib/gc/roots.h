// SPDX-License-Identifier: Apache-2.0
// Where the program may keep pointers outside the heap: a snapshot of the root ranges, and a way
// to read them that no unmapping by the program can turn into a fault.
#pragma once

#include "base/types.h"
#include "plat/maps.h"
#include "plat/pagemap.h"

namespace undergo::gc {

struct RootRange {
  Addr from, to;  // multiples of the page size, until Subtract cuts
  bool writable;
  bool bytewise;  // executable and no program text: pointers at every byte offset (JIT code)
  bool shared;
  bool readable;    // by the program; ReadRange does not care
  bool file_pages;  // pages of the page cache count: shared memory
  bool swapped;     // has swapped pages that cannot be told from pages that do not exist
};

// The snapshot. Sorted by address, without overlaps. One thread builds and changes it.
class RootList {
 public:
  // Reads /proc/self/maps. In the list: writable mappings, shared memory, and of all other private
  // mappings the pages that differ from their file. Not in it: what is in plat/own_ranges.h (the
  // heap, and the library's own data), devices, what the kernel maps for itself. False when the
  // mappings cannot be read or storage is refused; the list is empty then.
  bool Build();
  // Takes a range out, for example what lies below a stack pointer. False when storage is refused.
  bool Subtract(Addr from, Addr to);

  size_t size() const { return count_; }
  const RootRange& operator[](size_t i) const { return ranges_[i]; }

  // The process maps the rings of an io_uring.
  bool has_io_uring() const { return has_io_uring_; }
  // Something that is mapped may write to memory without a fault (gc/kernel_roots.h).
  bool has_direct_writer() const { return has_direct_writer_; }
  bool has_missed_module() const { return has_missed_module_; }

 private:
  friend struct MapsVisitor;
  bool Read(const plat::PageMap& pages, plat::MapSource source);
  bool Reserve(size_t count);
  bool Push(RootRange r);

  RootRange* ranges_ = nullptr;  // own pages, kept from cycle to cycle
  size_t count_ = 0;
  size_t capacity_ = 0;
  bool has_io_uring_ = false;
  bool has_missed_module_ = false;
  bool has_direct_writer_ = false;
  bool has_shared_memory_ = false;
};

// Asked for each mapped file of program text: whether it is a module whose objects cannot be told
// from others, so that nothing may be reclaimed. Set once at start; null: none is.
using ModuleHook = bool (*)(Addr text, const char* path);
extern constinit ModuleHook is_missed_module;

inline constexpr size_t kReadBuffer = 64 * kKiB;

// f(context, data, address, n): the n bytes at `data` are what stands at `address`.
using ChunkVisitor = void (*)(void* context, const void* data, Addr address, size_t n);

// Copies the range piece by piece into `buffer` (8-byte aligned) and shows the pieces. Pieces that
// follow each other overlap by 8 bytes, so that every word is seen whole, whatever its
// alignment; address and n are multiples of 8 if the ends of the range are. What is not mapped (any
// more) is left out. Memory without read permission is read through /proc/self/mem. False when
// some page that exists could not be read.
bool ReadRange(Addr from, Addr to, void* buffer, ChunkVisitor f, void* context,
               size_t buffer_size = kReadBuffer);

// The same for those pages of a range of the list, or of a part of one, that can hold something:
// never touches pages that do not exist yet (unless some are in swap and cannot be told from them),
// and skips unchanged pages of files.
bool ReadRoot(const RootRange& r, void* buffer, ChunkVisitor f, void* context);
// The same for a caller that has the page tables open: saves two thirds of the cost of small
// ranges.
bool ReadRoot(const plat::PageMap& pages, const RootRange& r, void* buffer, ChunkVisitor f,
              void* context);

}  // namespace undergo::gc
