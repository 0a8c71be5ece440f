// SPDX-License-Identifier: Apache-2.0
// First contexts.
#include "plat/context.h"

#include <sys/auxv.h>

namespace undergo::plat {

bool CanSwitch() {
  constexpr unsigned long kFsgsbase = 2;  // HWCAP2_FSGSBASE
  return (getauxval(AT_HWCAP2) & kFsgsbase) != 0;
}

Addr MakeContext(Addr top, void (*entry)(void*), void* arg) {
  struct {
    uint16_t x87;
    uint16_t unused;
    uint32_t mxcsr;
  } control = {};
  asm volatile("fnstcw %0" : "=m"(control.x87));
  asm volatile("stmxcsr %0" : "=m"(control.mxcsr));
  Addr gs;
  asm volatile("rdgsbase %0" : "=r"(gs));
  // Behind the return into undergo_context_start the stack is aligned for its call.
  auto* words = reinterpret_cast<Addr*>(top) - 9;
  __builtin_memcpy(&words[0], &control, sizeof control);
  words[1] = gs;
  words[2] = words[3] = words[4] = 0;        // r15, r14, r13
  words[5] = reinterpret_cast<Addr>(entry);  // r12
  words[6] = reinterpret_cast<Addr>(arg);    // rbx
  words[7] = 0;                              // rbp
  words[8] = reinterpret_cast<Addr>(&undergo_context_start);
  return reinterpret_cast<Addr>(words);
}

}  // namespace undergo::plat
