// SPDX-License-Identifier: Apache-2.0
// Word and bitmap scans against loops over single bits.

#include "base/bits.h"

#include <criterion/criterion.h>

#include <cstring>
#include <vector>

#include "check.h"

using namespace undergo;

namespace {

constexpr size_t kWords = 5;
constexpr size_t kBits = kWords * 64;

size_t NaiveFind(const std::vector<bool>& bits, size_t end, size_t from, bool value) {
  for (size_t i = from; i < end; ++i) {
    if (bits[i] == value) return i;
  }
  return end;
}

void ExpectSame(const uint64_t* words, const std::vector<bool>& bits) {
  for (size_t i = 0; i < kBits; ++i) {
    cr_assert(TestBit(words, i) == bits[i], "bit %zu", i);
  }
}

}  // namespace

Test(bits, single_words) {
  for (uint32_t i = 0; i < 64; ++i) {
    cr_expect(LowestBit(uint64_t{1} << i) == i && LowestBit(~uint64_t{0} << i) == i);
    cr_expect(HighestBit(uint64_t{1} << i) == i && HighestBit((uint64_t{2} << i) - 1) == i);
    cr_expect(CountBits(LowMask(i)) == i);
    cr_expect(i == 0 || (LowMask(i) & (LowMask(i) + 1)) == 0);
  }
  cr_expect(LowMask(0) == 0 && LowMask(64) == ~uint64_t{0} && LowMask(65) == ~uint64_t{0});
  cr_expect(CountBits(0) == 0 && CountBits(~uint64_t{0}) == 64);
}

Test(bits, runs_against_single_bits) {
  Random random = {1};
  for (int round = 0; round < 300; ++round) {
    uint64_t words[kWords] = {};
    std::vector<bool> bits(kBits);
    for (int step = 0; step < 12; ++step) {
      size_t from = Below(&random, kBits + 1);
      size_t count = Below(&random, kBits + 1 - from);
      if (Below(&random, 4) == 0) from = from / 64 * 64, count = count / 64 * 64;
      bool value = Below(&random, 2) == 0;
      SetBits(words, from, count, value);
      for (size_t i = from; i < from + count; ++i) bits[i] = value;
      ExpectSame(words, bits);
      for (int look = 0; look < 20; ++look) {
        size_t end = Below(&random, kBits + 1), start = Below(&random, kBits + 1);
        size_t n = 0;
        for (size_t i = start; i < end; ++i) n += bits[i];
        if (start <= end) cr_assert(CountBitsIn(words, start, end - start) == n);
        for (bool wanted : {false, true}) {
          size_t found = FindBit(words, end, start, wanted);
          size_t expected = start < end ? NaiveFind(bits, end, start, wanted) : end;
          cr_assert(found == expected, "from %zu to %zu: %zu, wanted %zu", start, end, found,
                    expected);
        }
      }
    }
  }
}

Test(bits, a_find_reads_nothing_past_its_end) {
  // A word boundary as the end: the word behind it is not part of the bitmap.
  uint64_t words[2] = {0, ~uint64_t{0}};
  cr_expect(FindBit(words, 64, 0, true) == 64);
  cr_expect(FindBit(words, 64, 63, true) == 64);
  cr_expect(FindBit(words, 0, 0, true) == 0);
  cr_expect(FindBit(words, 65, 0, true) == 64);
}
