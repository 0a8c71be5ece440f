// SPDX-License-Identifier: Apache-2.0
// Scan kernels: which words of a block may point into the heap. The marker's innermost loop.
#pragma once

#include "base/compiler.h"
#include "base/types.h"

namespace undergo::gc {

// What counts as a pointer. The range ends at or below 2^47, as every user address does.
struct ScanTarget {
  Addr base;       // first byte of the heap's range
  size_t size;     // bytes of the range
  uint64_t guard;  // glibc's pointer guard, fs:0x30 of a thread of the program
};

// Stores the addresses in [base, base + size) that the block may contain and returns their number:
//   - each aligned word with its top 17 bits cleared, which finds plain and tagged pointers,
//   - each aligned word w demangled as setjmp mangles, rotr(w, 17) ^ guard,
//   - each word at 4 mod 8, two halves of neighbours, as it is; after ScanEveryByte, those at all
//     other offsets, too.
// The same address may come several times, the order is the kernel's own. `words` is aligned to 8
// and nothing outside the block is read. `out` needs ScanRoom entries; the kernels use entries
// beyond those returned as scratch.
using ScanFn = size_t (*)(const uint64_t* words, size_t count, const ScanTarget& target,
                          uint64_t* out);

size_t ScanScalar(const uint64_t* words, size_t count, const ScanTarget& target, uint64_t* out);
size_t ScanAvx2(const uint64_t* words, size_t count, const ScanTarget& target, uint64_t* out);
size_t ScanAvx512(const uint64_t* words, size_t count, const ScanTarget& target, uint64_t* out);

// Entries for a block of `count` words.
constexpr size_t ScanRoom(size_t count) { return 9 * count + 8; }

// Words that callers with more of them scan at a time.
inline constexpr size_t kScanBlock = 64;

// The kernel in use: ScanScalar until ChooseScanKernel has run.
extern constinit ScanFn scan;
// Distance in bytes at which words may begin: 4, or 1 after ScanEveryByte.
extern constinit uint32_t scan_step;

// Calls f with the words across the border of two blocks, which the kernel does not see.
template <typename F>
UNDERGO_INLINE void ForEachAcross(Addr border, F f) {
  for (uint32_t back = scan_step; back < sizeof(uint64_t); back += scan_step) {
    uint64_t word;
    __builtin_memcpy(&word, reinterpret_cast<const char*>(border - back), sizeof word);
    f(word);
  }
}

// Clears the vector registers in which the kernel has left words of the heap: those of a thread of
// the program are roots.
void ForgetScanned();

// Sets `scan` to the fastest kernel that processor and system support, and *name (if not null) to
// "avx512", "avx2" or "scalar". Call it before any other thread scans.
void ChooseScanKernel(const char** name);

// From now on words count at every offset. After ChooseScanKernel, before any other thread scans.
void ScanEveryByte();

// True if the kernel may run here.
bool HasAvx2();
bool HasAvx512();

// For JIT code: the words at every byte offset, as they are. `out` needs room for n entries.
size_t ScanBytewise(const uint8_t* bytes, size_t n, const ScanTarget& target, uint64_t* out);

}  // namespace undergo::gc
