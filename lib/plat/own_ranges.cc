// SPDX-License-Identifier: Apache-2.0
// Table of the library's own address ranges.
//
// The table is written wherever memory is mapped: on threads in the middle of malloc, in signal
// handlers above them, in children of a fork that interrupted such a thread. A lock would have to
// survive all three. So one range is one 64-bit word, which changes by compare-and-swap alone: page
// number and number of pages. Readers see each word whole and nothing else has to be consistent.
//
// Rejected: a sorted table behind a sequence lock (a handler would wait for its own thread); two
// words for each range (a reader could see the start of one range with the end of another); merging
// neighbours into one word (two threads that unmap parts of it at once could leave a part in the
// table, and memory of the program that comes to lie there would not be scanned).
#include "plat/own_ranges.h"

#include <elf.h>
#include <linux/mman.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "plat/syscall.h"

// The linker's name for the module's own header.
extern "C" __attribute__((visibility("hidden"))) const Elf64_Ehdr __ehdr_start;

namespace undergo::plat {

namespace {

// A range: page number in the upper 35 bits, pages in the lower 29. User addresses have 47 bits
// unless a program asks mmap for more by a hint, and this library does not. 0 is an empty word.
constexpr uint32_t kCountBits = 29;
constexpr uint32_t kPageShift = 12;
constexpr size_t kMaxBytes = size_t{1} << (kCountBits + kPageShift - 1);

constexpr uint64_t Pack(Addr from, Addr to) {
  return (uint64_t{from >> kPageShift} << kCountBits) | ((to - from) >> kPageShift);
}
constexpr Addr From(uint64_t w) { return static_cast<Addr>(w >> kCountBits) << kPageShift; }
constexpr Addr To(uint64_t w) {
  return From(w) + (static_cast<Addr>(w & LowMask(kCountBits)) << kPageShift);
}

struct Chunk {
  static constexpr size_t kWords = 511;
  uint64_t words[kWords];  // any thread, by compare-and-swap
  Chunk* next;             // set once, by compare-and-swap
};
static_assert(sizeof(Chunk) == kOsPageSize);

constinit Chunk first_chunk = {};

// The words are independent of each other; what a range protects is ordered by the system calls
// that map and unmap it. pairs: Change, ForEachOwnRange
uint64_t Load(const uint64_t* w) { return LoadAcquire(w); }
bool Change(uint64_t* w, uint64_t expected, uint64_t desired) {
  return CasAcqRel(w, &expected, desired);  // pairs: Load
}

// The chunk after this one, made when there is none; null when memory is refused.
Chunk* NextChunk(Chunk* c) {
  Chunk* next = LoadAcquire(&c->next);  // pairs: the exchange below
  if (next != nullptr) return next;
  long r = Syscall(__NR_mmap, nullptr, sizeof(Chunk), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (IsError(r)) return nullptr;
  auto* fresh = reinterpret_cast<Chunk*>(r);
  fresh->words[0] = Pack(static_cast<Addr>(r), static_cast<Addr>(r) + sizeof(Chunk));
  if (CasAcqRel(&c->next, &next, fresh)) return fresh;  // pairs: the load above
  Syscall(__NR_munmap, r, sizeof(Chunk));
  return next;
}

// Without memory for a chunk the range stays unknown: it is scanned as a root, which at worst keeps
// garbage alive.
void Insert(uint64_t range) {
  for (Chunk* c = &first_chunk; c != nullptr; c = NextChunk(c)) {
    for (uint64_t& word : c->words) {
      if (Load(&word) == 0 && Change(&word, 0, range)) return;
    }
  }
}

// One word without [from, to). False when it changed at the same time.
bool Cut(uint64_t* word, uint64_t w, Addr from, Addr to) {
  bool left = from > From(w);
  bool right = to < To(w);
  uint64_t rest = left ? Pack(From(w), from) : right ? Pack(to, To(w)) : 0;
  if (!Change(word, w, rest)) return false;
  if (left && right) Insert(Pack(to, To(w)));
  return true;
}

}  // namespace

void AddOwnRange(Addr from, size_t size) {
  Addr to = AlignUp(from + size, kOsPageSize);
  while (from < to) {
    Addr end = from + Min(to - from, kMaxBytes);
    Insert(Pack(from, end));
    from = end;
  }
}

void RemoveOwnRange(Addr from, size_t size) {
  Addr to = AlignUp(from + size, kOsPageSize);
  for (Chunk* c = &first_chunk; c != nullptr; c = LoadAcquire(&c->next)) {  // pairs: NextChunk
    for (uint64_t& word : c->words) {
      for (;;) {
        uint64_t w = Load(&word);
        if (w == 0 || From(w) >= to || To(w) <= from || Cut(&word, w, from, to)) break;
      }
    }
  }
}

void AddOwnModule() {
  auto base = reinterpret_cast<Addr>(&__ehdr_start);
  auto* header = reinterpret_cast<const Elf64_Phdr*>(base + __ehdr_start.e_phoff);
  // Addresses in the file begin at 0: modules that can be loaded anywhere are linked so.
  for (int i = 0; i < __ehdr_start.e_phnum; ++i, ++header) {
    if (header->p_type != PT_LOAD || (header->p_flags & PF_W) == 0) continue;
    Addr from = AlignDown(base + header->p_vaddr, kOsPageSize);
    Addr to = AlignUp(base + header->p_vaddr + header->p_memsz, kOsPageSize);
    RemoveOwnRange(from, to - from);
    AddOwnRange(from, to - from);
  }
}

bool ForEachOwnRange(bool (*f)(void* context, Addr from, Addr to), void* context) {
  for (Chunk* c = &first_chunk; c != nullptr; c = LoadAcquire(&c->next)) {  // pairs: NextChunk
    for (uint64_t& word : c->words) {
      uint64_t w = Load(&word);
      if (w != 0 && !f(context, From(w), To(w))) return false;
    }
  }
  return true;
}

}  // namespace undergo::plat
