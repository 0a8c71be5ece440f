// SPDX-License-Identifier: Apache-2.0
// Scan kernels: each against the definition, word by word, with unmapped pages at both ends.

#include "gc/scan.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "base/compiler.h"

using namespace undergo;
using namespace undergo::gc;

namespace {

constexpr uint64_t kLow47 = (uint64_t{1} << 47) - 1;
constexpr uint64_t kUntouched = 0xfeedfacecafebeef;

struct Kernel {
  const char* name;
  ScanFn function;
  bool usable;
};

std::vector<Kernel> Kernels() {
  return {{"scalar", ScanScalar, true},
          {"avx2", ScanAvx2, HasAvx2()},
          {"avx512", ScanAvx512, HasAvx512()}};
}

uint64_t Mangle(uint64_t p, uint64_t guard) {
  uint64_t w = p ^ guard;
  return w << 17 | w >> 47;
}

bool Inside(uint64_t v, const ScanTarget& t) { return v >= t.base && v < t.base + t.size; }

// The definition, in its four parts.
std::vector<uint64_t> Expected(const uint64_t* words, size_t count, const ScanTarget& t) {
  std::vector<uint64_t> found;
  for (size_t i = 0; i < count; i++) {
    uint64_t w = words[i];
    if (Inside(w, t)) found.push_back(w);
    if ((w & kLow47) != w && Inside(w & kLow47, t)) found.push_back(w & kLow47);
    uint64_t d = (w >> 17 | w << 47) ^ t.guard;
    if (Inside(d, t)) found.push_back(d);
    if (i + 1 < count) {
      uint64_t u;
      memcpy(&u, reinterpret_cast<const char*>(words + i) + 4, sizeof u);
      if (Inside(u, t)) found.push_back(u);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Some pages between two that nobody may touch.
class Fenced {
 public:
  Fenced() {
    char* all = static_cast<char*>(
        mmap(nullptr, kSize + 2 * kOsPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    begin_ = all + kOsPageSize;
    mprotect(begin_, kSize, PROT_READ | PROT_WRITE);
  }
  ~Fenced() { munmap(begin_ - kOsPageSize, kSize + 2 * kOsPageSize); }
  uint64_t* begin() { return reinterpret_cast<uint64_t*>(begin_); }
  uint64_t* EndLess(size_t words) { return reinterpret_cast<uint64_t*>(begin_ + kSize) - words; }

 private:
  static constexpr size_t kSize = 4 * kOsPageSize;
  char* begin_;
};

void Check(const Kernel& k, const uint64_t* words, size_t count, const ScanTarget& t) {
  if (!k.usable) return;
  std::vector<uint64_t> out(3 * count + 9, kUntouched);
  size_t n = k.function(words, count, t, out.data());
  cr_assert(n <= 3 * count, "%s returned %zu for %zu words", k.name, n, count);
  cr_expect(out.back() == kUntouched, "%s wrote too far, %zu words", k.name, count);
  std::vector<uint64_t> found(out.begin(), out.begin() + static_cast<ptrdiff_t>(n));
  std::sort(found.begin(), found.end());
  auto expected = Expected(words, count, t);
  cr_expect(found == expected, "%s: %zu words at %p, found %zu, wanted %zu", k.name, count,
            static_cast<const void*>(words), found.size(), expected.size());
}

const ScanTarget kTargets[] = {
    {0x7d1234200000, size_t{1} << 40, 0x9e3779b97f4a7c15},  // not aligned to its size
    {0x00c000000000, 64 << 20, 0xf39cc0605cedc834},
    {0x100000000, 0x1000, 0x100000800},     // a guard inside: a zero word demangles into the heap
    {0x7ffffffff000, 0x1000, 0},            // up to the end of user space
    {0x10000, 1 << 20, 0x123456789abcdef},  // half a word looks like an address
};

// Fills the block with words of all kinds; `density` of 16 are made to be found.
void Fill(uint64_t* words, size_t count, const ScanTarget& t, unsigned density,
          std::mt19937_64& random) {
  for (size_t i = 0; i < count; i++) words[i] = random() >> random() % 64;
  for (size_t i = 0; i < count; i++) {
    if (random() % 16 >= density) continue;
    uint64_t p = t.base + random() % t.size;
    if (random() % 8 == 0) p = t.base + (random() % 2 == 0 ? 0 : t.size - 1);
    if (random() % 8 == 0) p = random() % 2 == 0 ? t.base - 1 : t.base + t.size;
    switch (random() % 5) {
      case 0: words[i] = p; break;
      case 1: words[i] = p | random() << 47; break;
      case 2: words[i] = Mangle(p, t.guard); break;
      case 3:
        if (i + 1 < count) memcpy(reinterpret_cast<char*>(words + i) + 4, &p, sizeof p);
        break;
      case 4: words[i] = 0; break;
    }
  }
}

}  // namespace

Test(scan, every_length_and_position) {
  std::mt19937_64 random(1);
  Fenced memory;
  for (const ScanTarget& t : kTargets) {
    for (size_t count = 0; count <= 130; count++) {
      for (unsigned density : {0u, 1u, 4u, 16u}) {
        // Before the unmapped page, behind the one in front, and each place within a line.
        uint64_t* last = memory.EndLess(count);
        Fill(last, count, t, density, random);
        for (const Kernel& k : Kernels()) Check(k, last, count, t);
        uint64_t* first = memory.begin() + random() % 8;
        Fill(memory.begin(), count + 16, t, density, random);
        for (const Kernel& k : Kernels()) Check(k, first, count, t);
        for (const Kernel& k : Kernels()) Check(k, memory.begin(), count, t);
      }
    }
  }
}

Test(scan, long_blocks) {
  std::mt19937_64 random(2);
  Fenced memory;
  for (int round = 0; round < 200; round++) {
    const ScanTarget& t = kTargets[round % 5];
    size_t count = 130 + random() % 1500;
    uint64_t* words = memory.EndLess(count);
    Fill(words, count, t, static_cast<unsigned>(random() % 17), random);
    for (const Kernel& k : Kernels()) Check(k, words, count, t);
  }
}

// One pointer alone, of each kind, in each lane: nothing else could hide a wrong lane.
Test(scan, one_pointer_in_each_place) {
  Fenced memory;
  const ScanTarget& t = kTargets[0];
  uint64_t p = t.base + 0x123456789;
  for (size_t count = 1; count <= 40; count++) {
    uint64_t* words = memory.EndLess(count);
    for (size_t i = 0; i < count; i++) {
      for (int kind = 0; kind < 4; kind++) {
        memset(words, 0, count * 8);
        size_t wanted = 1;
        switch (kind) {
          case 0: words[i] = p; break;
          case 1: words[i] = p | uint64_t{0xabcd} << 48; break;
          case 2: words[i] = Mangle(p, t.guard); break;
          case 3:
            memcpy(reinterpret_cast<char*>(words + i) + 4, &p, i + 1 < count ? 8 : 4);
            if (i + 1 == count) wanted = 0;
            break;
        }
        for (const Kernel& k : Kernels()) {
          if (!k.usable) continue;
          uint64_t out[128] = {};
          size_t n = k.function(words, count, t, out);
          cr_expect(n == wanted && (n == 0 || out[0] == p), "%s: kind %d at %zu of %zu: %zu",
                    k.name, kind, i, count, n);
        }
      }
    }
  }
}

Test(scan, choice) {
  cr_expect(scan == ScanScalar, "scalar before the choice");
  const char* name = nullptr;
  ChooseScanKernel(&name);
  const Kernel* chosen = nullptr;
  auto kernels = Kernels();
  for (const Kernel& k : kernels) {
    if (k.usable) chosen = &k;  // the last one is the fastest
  }
  cr_expect(scan == chosen->function);
  cr_expect(strcmp(name, chosen->name) == 0, "name %s", name);
  ChooseScanKernel(nullptr);
  cr_expect(scan == chosen->function);
  // The compiler's own idea of the processor.
  __builtin_cpu_init();
  cr_expect(HasAvx2() == (__builtin_cpu_supports("avx2") != 0));
  cr_expect(HasAvx512() ==
            (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")));
}

// Scanning leaves words of the heap in vector registers; none of them may stay there.
UNDERGO_NOINLINE __attribute__((target("avx512f"))) bool RegistersHold(uint64_t low,
                                                                       uint64_t high) {
  alignas(64) uint64_t words[32][8];
  asm volatile(
      ".irp "
      "n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
      "vmovdqu64 %%zmm\\n, 64*\\n(%0)\n\t"
      ".endr" ::"r"(&words[0][0])
      : "memory");
  for (auto& r : words) {
    for (uint64_t w : r) {
      if (w >= low && w < high) return true;
    }
  }
  return false;
}

Test(scan, nothing_stays_in_registers) {
  if (!HasAvx512()) cr_skip_test("without AVX-512 nobody can look at 32 registers");
  ChooseScanKernel(nullptr);
  constexpr size_t kWords = 64;
  ScanTarget target = {};
  target.base = 0x7a0000000000;
  target.size = 1 << 30;
  alignas(64) static uint64_t block[kWords];
  static uint64_t out[3 * kWords + 16];
  for (size_t i = 0; i < kWords; i++) block[i] = target.base + 16 * i;
  bool held = false;
  for (int i = 0; i < 10; i++) {
    scan(block, kWords, target, out);
    held |= RegistersHold(target.base, target.base + target.size);
    scan(block, kWords, target, out);
    ForgetScanned();
    cr_expect(!RegistersHold(target.base, target.base + target.size));
  }
  cr_expect(held, "the test sees nothing");
}

Test(scan, bytewise) {
  std::mt19937_64 random(3);
  Fenced memory;
  for (const ScanTarget& t : kTargets) {
    for (size_t n = 0; n <= 200; n++) {
      uint8_t* bytes = reinterpret_cast<uint8_t*>(memory.EndLess(0)) - n;
      for (size_t i = 0; i < n; i++) bytes[i] = static_cast<uint8_t>(random());
      for (size_t planted = 0; n >= 8 && planted < 4; planted++) {
        uint64_t p = t.base + random() % t.size;
        memcpy(bytes + random() % (n - 7), &p, sizeof p);
      }
      std::vector<uint64_t> expected, out(n + 1, kUntouched);
      for (size_t i = 0; i + 8 <= n; i++) {
        uint64_t w;
        memcpy(&w, bytes + i, sizeof w);
        if (Inside(w, t)) expected.push_back(w);
      }
      size_t found = ScanBytewise(bytes, n, t, out.data());
      out.resize(found);
      cr_expect(out == expected, "%zu bytes: found %zu, wanted %zu", n, found, expected.size());
    }
  }
}

Test(scan, every_byte) {
  std::mt19937_64 random(4);
  Fenced memory;
  ChooseScanKernel(nullptr);
  ScanEveryByte();
  for (const ScanTarget& t : kTargets) {
    for (size_t count = 0; count <= 70; count++) {
      uint64_t* words = memory.EndLess(count);
      auto* bytes = reinterpret_cast<uint8_t*>(words);
      for (size_t i = 0; i < count * 8; i++) bytes[i] = static_cast<uint8_t>(random());
      for (size_t planted = 0; count > 0 && planted < 4; planted++) {
        uint64_t p = t.base + random() % t.size;
        memcpy(bytes + random() % (count * 8 - 7), &p, sizeof p);
      }
      std::vector<uint64_t> expected = Expected(words, count, t), out(ScanRoom(count));
      for (size_t i = 0; i + 8 <= count * 8; i++) {
        uint64_t w;
        memcpy(&w, bytes + i, sizeof w);
        if (i % 4 != 0 && Inside(w, t)) expected.push_back(w);
      }
      out.resize(scan(words, count, t, out.data()));
      std::sort(expected.begin(), expected.end());
      std::sort(out.begin(), out.end());
      cr_expect(out == expected, "%zu words: found %zu, wanted %zu", count, out.size(),
                expected.size());
    }
  }
  // The bytes before and after the border are numbered: the lowest byte of a word tells its offset.
  static const uint8_t around[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::vector<uint64_t> offsets;
  auto look = [&](uint64_t word) { offsets.push_back(word & 0xff); };
  ForEachAcross(reinterpret_cast<Addr>(around + 8), look);
  cr_expect(offsets == std::vector<uint64_t>({7, 6, 5, 4, 3, 2, 1}));
  ChooseScanKernel(nullptr);
  offsets.clear();
  ForEachAcross(reinterpret_cast<Addr>(around + 8), look);
  cr_expect(offsets == std::vector<uint64_t>({4}));
}
