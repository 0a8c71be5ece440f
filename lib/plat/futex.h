// SPDX-License-Identifier: Apache-2.0
// The kernel's wait queue on a 32-bit word, private to the process.
#pragma once

#include <cstdint>

#include "plat/syscall.h"

namespace undergo::plat {

// Returns when woken, when *word differs from `expected`, or spuriously; the kernel's answer.
inline long FutexWait(const uint32_t* word, uint32_t expected) {
  return Syscall(__NR_futex, word, 128 /* WAIT | PRIVATE */, expected, nullptr);
}
// The same, and at the latest after `ns`.
inline long FutexWaitFor(const uint32_t* word, uint32_t expected, uint64_t ns) {
  uint64_t span[2] = {ns / 1000000000, ns % 1000000000};
  return Syscall(__NR_futex, word, 128 /* WAIT | PRIVATE */, expected, span);
}
inline void FutexWake(const uint32_t* word, int count) {
  Syscall(__NR_futex, word, 129 /* WAKE | PRIVATE */, count);
}

}  // namespace undergo::plat
