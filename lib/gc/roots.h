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
  bool by_page;     // in mapped_: not the whole, but the pages in it that exist
};

// Ranges in own pages, kept from cycle to cycle. Sorted by address, without overlaps.
class RangeArray {
 public:
  // Behind the others. What overlaps the last one is left out: mappings that changed while the list
  // was read may. False when storage is refused.
  bool Push(RootRange r);
  bool Subtract(Addr from, Addr to);
  void Clear() { count_ = 0; }
  size_t size() const { return count_; }
  const RootRange& operator[](size_t i) const { return ranges_[i]; }

 private:
  bool Reserve(size_t count);

  RootRange* ranges_ = nullptr;
  size_t count_ = 0;
  size_t capacity_ = 0;
};

// The snapshot. Sorted by address, without overlaps. One thread builds and changes it.
class RootList {
 public:
  // Reads /proc/self/maps. In the list: writable mappings, shared memory, and of all other private
  // mappings the pages that differ from their file. Not in it: what is in plat/own_ranges.h (the
  // heap, and the library's own data), devices, what the kernel maps for itself. False when the
  // mappings cannot be read or storage is refused; the list is empty then.
  bool Build();
  // The same as the process is now, in a third of the time if the mappings are those of the last
  // Build. For a process that is stopped; Build was a moment ago.
  bool Rebuild();
  // Takes a range out, for example what lies below a stack pointer. False when storage is refused.
  bool Subtract(Addr from, Addr to) { return ranges_.Subtract(from, to); }

  size_t size() const { return ranges_.size(); }
  const RootRange& operator[](size_t i) const { return ranges_[i]; }

  // The process maps the rings of an io_uring.
  bool has_io_uring() const { return has_io_uring_; }
  // Something that is mapped may write to memory without a fault (gc/kernel_roots.h).
  bool has_direct_writer() const { return has_direct_writer_; }
  bool has_missed_module() const { return has_missed_module_; }

 private:
  friend struct MapsVisitor;
  bool BuildFromText(const plat::PageMap& pages);
  bool BuildFromSizes(const plat::PageMap& pages);
  bool Expand(const plat::PageMap& pages);
  void ForgetMappings();

  RangeArray ranges_;
  // Of the last Build, before anything was taken out.
  RangeArray mapped_;
  plat::MapsText text_;       // what it was made of, if is_plain_
  plat::MapsText now_;        // of Rebuild
  uint32_t protections_ = 0;  // changes of protection before it
  bool is_plain_ = false;     // made of the list without sizes
  bool has_io_uring_ = false;
  bool has_missed_module_ = false;
  bool has_direct_writer_ = false;
  bool has_shared_memory_ = false;
};

// The program is about to change the protection of memory. Any thread, signal handlers too.
void NoteProtection();

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

// The same for many short ranges: what a system call each would cost more than the copying.
class ReadBatch {
 public:
  // `buffer` has kReadBuffer bytes.
  ReadBatch(void* buffer, ChunkVisitor f, void* context)
      : buffer_(buffer), f_(f), context_(context) {}

  // Now or later: shows the range, or what waits.
  bool Read(Addr from, Addr to);
  // Shows all that waits.
  bool Flush();

 private:
  static constexpr uint32_t kRanges = 32;
  struct Range {
    void* at;
    size_t size;
  };

  void* buffer_;
  ChunkVisitor f_;
  void* context_;
  Range ranges_[kRanges];  // wait
  uint32_t count_ = 0;
  size_t bytes_ = 0;  // of them
};

// ReadRange for those pages of a range of the list, or of a part of one, that can hold something:
// never touches pages that do not exist yet (unless some are in swap and cannot be told from them),
// and skips unchanged pages of files.
bool ReadRoot(const RootRange& r, void* buffer, ChunkVisitor f, void* context);
// The same for a caller that has the page tables open: saves two thirds of the cost of small
// ranges.
bool ReadRoot(const plat::PageMap& pages, const RootRange& r, void* buffer, ChunkVisitor f,
              void* context);

}  // namespace undergo::gc
