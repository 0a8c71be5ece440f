// SPDX-License-Identifier: Apache-2.0
// Scan kernels by themselves: nanoseconds per call and per 64 bytes, by block size and by content.
// Links libgc.a; prints the best of several rounds, since a shared machine only ever adds time.

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <vector>

#include "gc/scan.h"

using namespace undergo;
using namespace undergo::gc;

namespace {

constexpr size_t kWords = 16384;  // 128 KiB: stays in the second-level cache
constexpr int kRounds = 15;
const ScanTarget kTarget = {0x7d1234200000, size_t{1} << 40, 0x9e3779b97f4a7c15};

double Now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

enum class Content { kNone, kOneInEight, kHalf, kAll };

uint64_t MakeWord(Content content, std::mt19937_64& random) {
  bool pointer = content == Content::kAll || (content == Content::kHalf && random() % 2 == 0) ||
                 (content == Content::kOneInEight && random() % 8 == 0);
  // Not pointers: small numbers and words of text.
  if (!pointer) return random() % 2 == 0 ? random() % 1000 : random() | 0x2020202020202020;
  return kTarget.base + random() % kTarget.size;
}

double Measure(ScanFn kernel, const std::vector<uint64_t>& words, size_t block) {
  static uint64_t out[3 * kWords + 8];
  double best = 1e30;
  size_t found = 0;
  for (int round = 0; round < kRounds; round++) {
    double start = Now();
    for (int repeat = 0; repeat < 8; repeat++) {
      for (size_t i = 0; i + block <= words.size(); i += block) {
        found += kernel(words.data() + i, block, kTarget, out);
      }
    }
    double each = (Now() - start) / (8 * static_cast<double>(words.size() / block));
    if (each < best) best = each;
  }
  if (found == 1) puts("");  // the result is used
  return best;
}

}  // namespace

int main() {
  struct {
    const char* name;
    ScanFn function;
    bool usable;
  } kernels[] = {{"scalar", ScanScalar, true},
                 {"avx2", ScanAvx2, HasAvx2()},
                 {"avx512", ScanAvx512, HasAvx512()}};
  const char* contents[] = {"no pointer", "one word in eight", "every other word", "all pointers"};
  for (int content = 0; content < 4; content++) {
    std::mt19937_64 random(7);
    std::vector<uint64_t> words(kWords);
    for (auto& w : words) w = MakeWord(static_cast<Content>(content), random);
    printf("%s: ns per call (ns per 64 bytes)\n%8s", contents[content], "bytes");
    for (const auto& k : kernels) {
      if (k.usable) printf("%18s", k.name);
    }
    puts("");
    for (size_t block : {2, 4, 6, 8, 16, 64, 128}) {
      printf("%8zu", block * 8);
      for (const auto& k : kernels) {
        if (!k.usable) continue;
        double ns = Measure(k.function, words, block);
        printf("  %7.2f (%6.2f)", ns, ns * 8 / static_cast<double>(block));
      }
      puts("");
    }
  }
}
