// SPDX-License-Identifier: Apache-2.0
// Raw system calls: no errno, no cancellation point, no interposed libc function in between.
// Returns the kernel's value: a result, or minus an errno number.
#pragma once

#include <asm/unistd.h>

namespace undergo::plat {

template <typename T>
inline long SyscallArg(T v) {
  return (long)v;
}  // pointers and integers of any width

inline long RawSyscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                       long f = 0) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

// Any mixture of pointers and integers.
template <typename... Args>
inline long Syscall(long nr, Args... args) {
  return RawSyscall(nr, SyscallArg(args)...);
}

inline bool IsError(long result) { return result < 0 && result > -4096; }

}  // namespace undergo::plat
