// SPDX-License-Identifier: Apache-2.0
// Call chains: as the compiler made them, the same as libgcc finds, from a thread and a handler.

#include "plat/backtrace.h"

#include <criterion/criterion.h>
#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <string>
#include <thread>
#include <vector>

#include "plat/real.h"

using namespace undergo;
using namespace undergo::plat;

#define NOINLINE __attribute__((noinline))

namespace {

// The test binary is "the library" itself for Backtrace, which leaves its frames out: chains that
// begin in libc code (qsort's comparison) are looked at from the first foreign frame on.
constexpr uint32_t kMax = 32;
std::vector<Addr> chain, theirs;

NOINLINE void Take() {
  Addr pcs[kMax];
  uint32_t n = Backtrace(pcs, kMax);
  chain.assign(pcs, pcs + n);
  void* frames[kMax + 16];
  int m = backtrace(frames, kMax + 16);
  theirs.clear();
  extern char first __asm__("__executable_start"), last __asm__("_end");
  for (int i = 0; i < m; ++i) {
    auto* p = static_cast<char*>(frames[i]);
    if (p < &first || p >= &last) theirs.push_back(reinterpret_cast<Addr>(p));
  }
}

NOINLINE int Compare(const void* a, const void* b) {
  if (chain.empty()) Take();
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

// With a frame that depends on the run.
NOINLINE int Variable(int n) {
  auto* room = static_cast<volatile int*>(__builtin_alloca(static_cast<size_t>(n) * 4));
  int values[] = {3, 1, 2};
  room[0] = n;
  qsort(values, 3, sizeof values[0], Compare);
  return room[0] + values[0];
}

// With a stack that is aligned by the function.
NOINLINE int AlignedFrame(int n) {
  alignas(64) volatile char room[256];
  room[n % 256] = 1;
  return Variable(n) + room[0];
}

void Start() {
  real::Resolve();
  chain.clear();
}

void Same() {
  cr_assert(chain.size() >= 2, "%zu frames", chain.size());
  cr_assert(chain.size() == theirs.size() || chain.size() == kMax);
  for (size_t i = 0; i < chain.size() && i < theirs.size(); ++i) {
    cr_assert(chain[i] == theirs[i], "frame %zu: %lx, libgcc has %lx", i, chain[i], theirs[i]);
  }
}

}  // namespace

TestSuite(backtrace, .timeout = 20, .init = Start);

Test(backtrace, through_functions_of_all_kinds) {
  AlignedFrame(77);
  Same();
  // Once more from the table of known frames.
  chain.clear();
  AlignedFrame(500);
  Same();
  ForgetFrames();
  chain.clear();
  AlignedFrame(5);
  Same();
}

Test(backtrace, on_a_thread) {
  std::thread([] { AlignedFrame(9); }).join();
  Same();
}

Test(backtrace, ends_where_nothing_is_known) {
  Addr pcs[4];
  alignas(16) uint64_t stack[64] = {};
  auto sp = reinterpret_cast<Addr>(stack);
  // Code that no module has.
  cr_expect(BacktraceFrom(0x1000, sp, 0, pcs, 4) == 1 && pcs[0] == 0x1000);
  // A wild frame pointer, in a function of libc that may or may not use it.
  auto f = reinterpret_cast<Addr>(reinterpret_cast<void*>(qsort));
  cr_expect(BacktraceFrom(f, sp, 0x123456789, pcs, 4) >= 1);
  cr_expect(Backtrace(pcs, 0) == 0);
}

Test(backtrace, text) {
  char text[512];
  Fmt out(text, sizeof text);
  Addr pcs[2] = {reinterpret_cast<Addr>(reinterpret_cast<void*>(qsort)), 0x1000};
  DescribeBacktrace(pcs, 2, &out);
  cr_expect(strstr(text, "(libc.so.6+0x") != nullptr && strstr(text, ") < 0x1000"), "%s", text);
}
