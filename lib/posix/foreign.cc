// SPDX-License-Identifier: Apache-2.0
// Pointers that glibc's own allocator made: recognised by their chunk header and given back to it.
//
// They exist although malloc is interposed: a library bound to libc by RTLD_DEEPBIND semantics of
// another preload, a copy of libc's malloc reached by dlsym, memory from before the loader switched
// to the interposed functions. Everything read here is read without faulting, so a wild pointer is
// only a wrong answer to a question.
#include "plat/maps.h"
#include "plat/real.h"
#include "plat/vm.h"
#include "posix/posix.h"

namespace undergo::posix {

namespace {

constexpr size_t kIsMmapped = 2, kNonMainArena = 4, kFlags = 7;
constexpr size_t kMinChunk = 32;
constexpr size_t kArenaHeapSize = 64 * kMiB;  // glibc's heaps of further arenas are aligned to it

struct Chunk {
  size_t prev_size;
  size_t size_and_flags;
};

struct Region {
  Addr address;
  bool in_brk_heap;
};

bool FindBrkHeap(void* context, const plat::Mapping& m) {
  auto* region = static_cast<Region*>(context);
  if (region->address < m.start || region->address >= m.end) return true;
  const char* expected = "[heap]";
  const char* path = m.path;
  while (*expected != '\0' && *expected == *path) ++expected, ++path;
  region->in_brk_heap = *expected == '\0';
  return false;
}

// The chunk header of p if p can be an object of glibc's malloc.
bool ReadChunk(void* p, Chunk* chunk) {
  Addr a = reinterpret_cast<Addr>(p);
  if (a % 16 != 0 || a < kOsPageSize) return false;
  if (!plat::SafeRead(a - sizeof(Chunk), chunk, sizeof *chunk)) return false;
  size_t size = chunk->size_and_flags & ~kFlags;
  if (size < kMinChunk || size % 16 != 0) return false;
  if ((chunk->size_and_flags & kIsMmapped) != 0) {
    Addr start = a - sizeof(Chunk) - chunk->prev_size;
    return start % kOsPageSize == 0 && (chunk->prev_size + size) % kOsPageSize == 0;
  }
  if ((chunk->size_and_flags & kNonMainArena) != 0) {
    // The heap's header begins with the address of its arena, and the chunk lies inside its size.
    size_t header[3];
    Addr start = AlignDown(a, kArenaHeapSize);
    if (!plat::SafeRead(start, header, sizeof header)) return false;
    return header[0] != 0 && a + size - sizeof(Chunk) <= start + header[2] &&
           header[2] <= kArenaHeapSize;
  }
  Region region = {a, false};
  return plat::ForEachMapping(FindBrkHeap, &region) && region.in_brk_heap;
}

}  // namespace

bool FreeForeign(void* p) {
  Chunk chunk;
  if (!ReadChunk(p, &chunk)) return false;
  if (real::undergo_real_free == nullptr) real::Resolve();
  if (real::undergo_real_free == nullptr) return false;
  real::undergo_real_free(p);
  return true;
}

bool ForeignSize(void* p, size_t* size) {
  Chunk chunk;
  if (!ReadChunk(p, &chunk)) return false;
  size_t bytes = chunk.size_and_flags & ~kFlags;
  // Another chunk's header follows, unless the object has a mapping of its own.
  *size = bytes - ((chunk.size_and_flags & kIsMmapped) != 0 ? 2 : 1) * sizeof(size_t);
  return true;
}

}  // namespace undergo::posix
