// SPDX-License-Identifier: Apache-2.0
// Switching: what a context keeps over it.

#include "plat/context.h"

#include <criterion/criterion.h>
#include <fenv.h>

#include "plat/vm.h"

using namespace undergo;
using namespace undergo::plat;

namespace {

constexpr size_t kStack = 64 * kKiB;
Addr main_sp, other_sp;
int steps = 0;
int rounding_seen = -1;

void Back() { undergo_switch(&other_sp, main_sp, GetFsBase()); }
void There() { undergo_switch(&main_sp, other_sp, GetFsBase()); }

void Count(void* arg) {
  int* n = static_cast<int*>(arg);
  for (;;) {
    ++*n;
    Back();
  }
}

void Rounding(void*) {
  fesetround(FE_UPWARD);
  for (;;) {
    rounding_seen = fegetround();
    Back();
  }
}

Addr Start(void (*entry)(void*), void* arg) {
  Addr stack = reinterpret_cast<Addr>(MapPages(kStack));
  return MakeContext(stack + kStack, entry, arg);
}

}  // namespace

Test(context, goes_back_and_forth) {
  if (!CanSwitch()) cr_skip_test("no fsgsbase");
  other_sp = Start(Count, &steps);
  for (int i = 1; i <= 1000; ++i) {
    There();
    cr_assert(steps == i);
  }
}

Test(context, callee_saved_registers_survive) {
  if (!CanSwitch()) cr_skip_test("no fsgsbase");
  other_sp = Start(Count, &steps);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    uint64_t a = i * 3, b = i * 5, c = i * 7, d = i * 11, e = i * 13;
    asm volatile("" : "+b"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e));
    There();
    asm volatile("" : "+b"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e));
    sum += a + b + c + d + e - i * 39;
  }
  cr_expect(sum == 0);
}

Test(context, each_context_has_its_own_rounding_mode) {
  if (!CanSwitch()) cr_skip_test("no fsgsbase");
  other_sp = Start(Rounding, nullptr);
  fesetround(FE_TOWARDZERO);
  for (int i = 0; i < 3; ++i) {
    There();
    cr_expect(rounding_seen == FE_UPWARD);
    cr_expect(fegetround() == FE_TOWARDZERO);
  }
}
