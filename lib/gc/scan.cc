// SPDX-License-Identifier: Apache-2.0
// The scan kernels.
//
// Problem. A conservative marker looks at every word of every reachable byte, and the policy of
// what may be a pointer has four forms: plain, with a tag in the top 17 bits, mangled by setjmp,
// and at 4 mod 8. Most blocks have 2 to 16 words, most words are no pointers, and a few lines per
// block are.
//
// Parts. The forms are three tests, because a plain pointer is one whose tag is zero: clearing the
// top bits of a word of the range does not change it, so one comparison finds both and one store
// serves both. A test is a subtraction and an unsigned comparison, for eight words at once.
// Unaligned words are made from the aligned ones already loaded, by shifting the line and its
// successor by half a word, so each byte is loaded once. Pointers of the first form are compressed
// and stored without a branch: whether a line has any is what a branch predictor cannot know. The
// other two forms are so rare that one branch for both is always predicted right.
//
// No load reaches beyond the block: it may end at the last byte before an unmapped page, and words
// of neighbours cannot count twice. A mask alone is not enough. A masked load waits for every line
// that it spans, those too from which it takes nothing, and behind a small object that is a miss
// for each object: it doubled the time of a mark. So the last words of a block are taken out of a
// whole load that ends with it, and shorter blocks come in loads of their size.
//
// Rejected: rounding the range up to a power of two, which tests a form in one instruction less but
// takes stacks and libraries for heap when the range is not aligned; compressing to memory, which
// is microcoded on some processors; four words at a time with AVX-512's masks, which needs twice
// the comparisons, and all of them go through one port.

#include "gc/scan.h"

#include <cpuid.h>
#include <immintrin.h>

#include "base/compiler.h"

// gcc 12 takes what the intrinsics put in place of masked-off lanes for a mistake.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

// The attribute belongs to each function by itself: one that is inlined needs the same set.
#define SCAN_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define SCAN_AVX512 __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,bmi,bmi2,popcnt")))

namespace undergo::gc {
namespace {

constexpr uint64_t kAddressMask = (uint64_t{1} << 47) - 1;
constexpr int kMangleBits = 17;

// Other threads may write the words meanwhile: load each one once.
UNDERGO_INLINE uint64_t LoadWord(const uint64_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

UNDERGO_INLINE uint64_t Demangle(uint64_t w, uint64_t guard) {
  return (w >> kMangleBits | w << (64 - kMangleBits)) ^ guard;
}

}  // namespace

constinit ScanFn scan = ScanScalar;
constinit uint32_t scan_step = 4;

size_t ScanScalar(const uint64_t* words, size_t count, const ScanTarget& target, uint64_t* out) {
  const Addr base = target.base;
  const size_t size = target.size;
  const uint64_t guard = target.guard;
  uint64_t* o = out;
  if (count == 0) return 0;
  uint64_t previous = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t w = LoadWord(words + i);
    uint64_t plain = w & kAddressMask;
    *o = plain;
    o += plain - base < size;
    uint64_t demangled = Demangle(w, guard);
    uint64_t unaligned = previous >> 32 | w << 32;
    if (UNDERGO_UNLIKELY(demangled - base < size)) *o++ = demangled;
    if (UNDERGO_UNLIKELY(unaligned - base < size) && i != 0) *o++ = unaligned;
    previous = w;
  }
  return static_cast<size_t>(o - out);
}

// ---- AVX2: no unsigned comparison, no compress ----
namespace {

// Byte offsets for moving the marked ones of four words to the front.
struct FrontTable {
  alignas(32) uint32_t lane[16][8];
};

constexpr FrontTable MakeFrontTable() {
  FrontTable t{};
  for (uint32_t mask = 0; mask < 16; mask++) {
    uint32_t n = 0;
    for (uint32_t word = 0; word < 4; word++) {
      if ((mask >> word & 1) == 0) continue;
      t.lane[mask][2 * n] = 2 * word;
      t.lane[mask][2 * n + 1] = 2 * word + 1;
      n++;
    }
  }
  return t;
}

constexpr FrontTable kFront = MakeFrontTable();

// Four words from position 4 - n are a mask of n lanes.
alignas(32) constexpr int64_t kLanes[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

struct Avx2Target {
  __m256i base;  // base - 2^63, so that a signed comparison sees the unsigned order
  __m256i size;  // size + 2^63
  __m256i guard;
  __m256i address_mask;
};

SCAN_AVX2 UNDERGO_INLINE __m256i Load4(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// One or two words in a load that touches nothing else; the other lanes are zero.
SCAN_AVX2 UNDERGO_INLINE __m256i LoadUpTo2(const uint64_t* words, size_t n) {
  auto* pair = reinterpret_cast<const __m128i*>(words);
  return _mm256_zextsi128_si256(n == 2 ? _mm_loadu_si128(pair) : _mm_loadl_epi64(pair));
}

SCAN_AVX2 UNDERGO_INLINE __m256i LaneMask(size_t n) { return Load4(kLanes + 4 - n); }

SCAN_AVX2 UNDERGO_INLINE __m256i InRange4(__m256i v, const Avx2Target& t) {
  return _mm256_cmpgt_epi64(t.size, _mm256_sub_epi64(v, t.base));
}

SCAN_AVX2 UNDERGO_INLINE __m256i Demangle4(__m256i w, const Avx2Target& t) {
  __m256i low = _mm256_xor_si256(_mm256_srli_epi64(w, kMangleBits), t.guard);
  return _mm256_xor_si256(low, _mm256_slli_epi64(w, 64 - kMangleBits));
}

SCAN_AVX2 UNDERGO_INLINE uint64_t* Emit4(__m256i v, __m256i hits, uint64_t* o) {
  uint32_t mask = static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(hits)));
  __m256i front = _mm256_permutevar8x32_epi32(v, Load4(kFront.lane[mask]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(o), front);
  return o + __builtin_popcount(mask);
}

// Four aligned words and the four unaligned ones; lanes outside the masks do not exist.
template <bool kMasked>
SCAN_AVX2 UNDERGO_INLINE uint64_t* Scan4(__m256i w, __m256i unaligned, __m256i lanes,
                                         __m256i unaligned_lanes, const Avx2Target& t,
                                         uint64_t* o) {
  __m256i plain = _mm256_and_si256(w, t.address_mask);
  __m256i demangled = Demangle4(w, t);
  __m256i is_plain = InRange4(plain, t);
  __m256i is_mangled = InRange4(demangled, t);
  __m256i is_unaligned = InRange4(unaligned, t);
  if (kMasked) {
    is_plain = _mm256_and_si256(is_plain, lanes);
    is_mangled = _mm256_and_si256(is_mangled, lanes);
    is_unaligned = _mm256_and_si256(is_unaligned, unaligned_lanes);
  }
  o = Emit4(plain, is_plain, o);
  __m256i rare = _mm256_or_si256(is_mangled, is_unaligned);
  if (UNDERGO_UNLIKELY(!_mm256_testz_si256(rare, rare))) {
    o = Emit4(demangled, is_mangled, o);
    o = Emit4(unaligned, is_unaligned, o);
  }
  return o;
}

}  // namespace

SCAN_AVX2 size_t ScanAvx2(const uint64_t* words, size_t count, const ScanTarget& target,
                          uint64_t* out) {
  if (UNDERGO_UNLIKELY(count == 0)) return 0;
  constexpr uint64_t kSign = uint64_t{1} << 63;
  const Avx2Target t = {_mm256_set1_epi64x(static_cast<int64_t>(target.base - kSign)),
                        _mm256_set1_epi64x(static_cast<int64_t>(target.size + kSign)),
                        _mm256_set1_epi64x(static_cast<int64_t>(target.guard)),
                        _mm256_set1_epi64x(kAddressMask)};
  uint64_t* o = out;
  __m256i all = LaneMask(4);
  for (; count > 4; words += 4, count -= 4) {
    __m256i unaligned = Load4(reinterpret_cast<const char*>(words) + 4);
    o = Scan4<false>(Load4(words), unaligned, all, all, t, o);
  }
  __m256i lanes = LaneMask(count), fewer = LaneMask(count - 1);
  __m256i tail = count > 2 ? _mm256_maskload_epi64(reinterpret_cast<const long long*>(words), lanes)
                           : LoadUpTo2(words, count);
  const __m256i next_half = _mm256_set_epi32(7, 7, 6, 5, 4, 3, 2, 1);
  o = Scan4<true>(tail, _mm256_permutevar8x32_epi32(tail, next_half), lanes, fewer, t, o);
  return static_cast<size_t>(o - out);
}

// ---- AVX-512 ----
namespace {

struct Avx512Target {
  __m512i base;
  __m512i size;
  __m512i guard;
  __m512i address_mask;
};

SCAN_AVX512 UNDERGO_INLINE uint64_t* Emit8(__m512i v, __mmask8 hits, uint64_t* o) {
  _mm512_storeu_si512(o, _mm512_maskz_compress_epi64(hits, v));
  return o + __builtin_popcount(hits);
}

SCAN_AVX512 UNDERGO_INLINE __mmask8 InRange8(__mmask8 lanes, __m512i v, const Avx512Target& t) {
  return _mm512_mask_cmplt_epu64_mask(lanes, _mm512_sub_epi64(v, t.base), t.size);
}

// A line and its unaligned words; lanes outside the masks do not exist.
SCAN_AVX512 UNDERGO_INLINE uint64_t* Scan8(__m512i w, __m512i unaligned, __mmask8 lanes,
                                           __mmask8 unaligned_lanes, const Avx512Target& t,
                                           uint64_t* o) {
  __m512i plain = _mm512_and_si512(w, t.address_mask);
  __m512i demangled = _mm512_xor_si512(_mm512_ror_epi64(w, kMangleBits), t.guard);
  __mmask8 is_mangled = InRange8(lanes, demangled, t);
  __mmask8 is_unaligned = InRange8(unaligned_lanes, unaligned, t);
  o = Emit8(plain, InRange8(lanes, plain, t), o);
  if (UNDERGO_UNLIKELY(!_kortestz_mask8_u8(is_mangled, is_unaligned))) {
    // Keeps the compiler from moving the counting of hits before the branch.
    asm volatile("" : "+Yk"(is_mangled), "+Yk"(is_unaligned));
    o = Emit8(unaligned, is_unaligned, Emit8(demangled, is_mangled, o));
  }
  return o;
}

SCAN_AVX512 UNDERGO_INLINE __m512i Unaligned8(__m512i line, __m512i next) {
  return _mm512_alignr_epi32(next, line, 1);
}

SCAN_AVX512 UNDERGO_INLINE __mmask8 Lanes8(size_t n) {
  return static_cast<__mmask8>(_bzhi_u32(0xff, static_cast<uint32_t>(n)));
}

// As LoadUpTo2.
SCAN_AVX512 UNDERGO_INLINE __m256i LoadUpTo4(const uint64_t* words, size_t n) {
  return n > 2 ? _mm256_maskz_loadu_epi64(Lanes8(n), words) : LoadUpTo2(words, n);
}
SCAN_AVX512 UNDERGO_INLINE __m512i LoadUpTo8(const uint64_t* words, size_t n) {
  if (n == 8) return _mm512_loadu_si512(words);
  if (n <= 4) return _mm512_zextsi256_si512(LoadUpTo4(words, n));
  __m512i low = _mm512_castsi256_si512(Load4(words));
  return _mm512_inserti64x4(low, LoadUpTo4(words + 4, n - 4), 1);
}
// The n words before `end`, where eight can be read.
SCAN_AVX512 UNDERGO_INLINE __m512i LoadLast(const uint64_t* end, size_t n) {
  const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  __m512i from = _mm512_add_epi64(lane, _mm512_set1_epi64(static_cast<int64_t>(8 - n)));
  return _mm512_maskz_permutexvar_epi64(Lanes8(n), from, _mm512_loadu_si512(end - 8));
}

}  // namespace

SCAN_AVX512 size_t ScanAvx512(const uint64_t* words, size_t count, const ScanTarget& target,
                              uint64_t* out) {
  if (UNDERGO_UNLIKELY(count == 0)) return 0;
  const Avx512Target t = {_mm512_set1_epi64(static_cast<int64_t>(target.base)),
                          _mm512_set1_epi64(static_cast<int64_t>(target.size)),
                          _mm512_set1_epi64(static_cast<int64_t>(target.guard)),
                          _mm512_set1_epi64(kAddressMask)};
  uint64_t* o = out;
  __m512i line;
  if (count > 8) {
    line = _mm512_loadu_si512(words);
    for (; count >= 16; count -= 8) {
      words += 8;
      __m512i next = _mm512_loadu_si512(words);
      o = Scan8(line, Unaligned8(line, next), 0xff, 0xff, t, o);
      line = next;
    }
    if (count > 8) {
      count -= 8;
      __m512i next = LoadLast(words + 8 + count, count);
      o = Scan8(line, Unaligned8(line, next), 0xff, 0xff, t, o);
      line = next;
    }
  } else {
    line = LoadUpTo8(words, count);
  }
  __m512i unaligned = Unaligned8(line, _mm512_setzero_si512());
  o = Scan8(line, unaligned, Lanes8(count), Lanes8(count - 1), t, o);
  return static_cast<size_t>(o - out);
}

size_t ScanBytewise(const uint8_t* bytes, size_t n, const ScanTarget& target, uint64_t* out) {
  uint64_t* o = out;
  for (size_t i = 0; i + sizeof(uint64_t) <= n; i++) {
    uint64_t w;
    __builtin_memcpy(&w, bytes + i, sizeof w);
    *o = w;
    o += w - target.base < target.size;
  }
  return static_cast<size_t>(o - out);
}

// ---- words at every offset ----
namespace {

constinit ScanFn kernel = ScanScalar;  // for the offsets that always count

// Few programs need it, and then time matters less than completeness: no vectors.
size_t ScanUnaligned(const uint64_t* words, size_t count, const ScanTarget& target, uint64_t* out) {
  uint64_t* o = out + kernel(words, count, target, out);
  auto* bytes = reinterpret_cast<const char*>(words);
  for (size_t i = 0; i + 4 + sizeof(uint64_t) <= count * sizeof(uint64_t); i += 4) {
    for (size_t k = 1; k < 4; ++k) {
      uint64_t w;
      __builtin_memcpy(&w, bytes + i + k, sizeof w);
      if (UNDERGO_UNLIKELY(w - target.base < target.size)) *o++ = w;
    }
  }
  return static_cast<size_t>(o - out);
}

}  // namespace

void ScanEveryByte() {
  scan = ScanUnaligned;
  scan_step = 1;
}

// ---- choice ----
namespace {

struct Features {
  uint32_t leaf7_ebx;  // 0 if the leaf does not exist
  uint64_t xcr0;       // register states that the system saves; 0 if it saves none by XSAVE
};

// Once: virtual machines take microseconds for each of these instructions.
Features ReadFeatures() {
  static constinit Features f = {};
  static constinit bool read = false;
  if (read) return f;
  read = true;
  uint32_t a, b, c, d;
  uint32_t most = __get_cpuid_max(0, nullptr);
  if (most < 7) return f;
  __cpuid(1, a, b, c, d);
  if ((c & bit_OSXSAVE) == 0) return f;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  f.xcr0 = uint64_t{high} << 32 | low;
  __cpuid_count(7, 0, a, b, c, d);
  f.leaf7_ebx = b;
  return f;
}

bool Has(uint32_t cpu_bits, uint64_t states) {
  Features f = ReadFeatures();
  return (f.leaf7_ebx & cpu_bits) == cpu_bits && (f.xcr0 & states) == states;
}

}  // namespace

// States: 1 and 2 are xmm and ymm, 5 to 7 the masks and the two parts of the zmm registers.
bool HasAvx2() { return Has(bit_AVX2 | bit_BMI | bit_BMI2, 0x06); }

bool HasAvx512() {
  return HasAvx2() && Has(bit_AVX512F | bit_AVX512VL | bit_AVX512DQ | bit_AVX512BW, 0xe6);
}

namespace {

SCAN_AVX2 void ForgetAvx2() { _mm256_zeroall(); }

SCAN_AVX512 void ForgetAvx512() {
  _mm256_zeroall();
  asm volatile(
      ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n\t"
      "vpxorq %%zmm\\n, %%zmm\\n, %%zmm\\n\n\t"
      ".endr" ::
          : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24",
            "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
}

}  // namespace

void ForgetScanned() {
  if (kernel == ScanAvx512) {
    ForgetAvx512();
  } else if (kernel == ScanAvx2) {
    ForgetAvx2();
  }
}

void ChooseScanKernel(const char** name) {
  const char* chosen = "scalar";
  kernel = ScanScalar;
  if (HasAvx512()) {
    chosen = "avx512";
    kernel = ScanAvx512;
  } else if (HasAvx2()) {
    chosen = "avx2";
    kernel = ScanAvx2;
  }
  scan = kernel;
  scan_step = 4;
  if (name != nullptr) *name = chosen;
}

}  // namespace undergo::gc
