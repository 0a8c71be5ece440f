// SPDX-License-Identifier: Apache-2.0
// Monotonic time.
#pragma once

#include <time.h>

#include <cstdint>

#include "plat/real.h"
#include "plat/syscall.h"

namespace undergo::plat {

// libc's, which asks the kernel only for few clocks; before boot the system call.
inline bool ReadClock(clockid_t clock, struct timespec* t) {
  if (real::clock_gettime != nullptr) return real::clock_gettime(clock, t) == 0;
  return !IsError(Syscall(__NR_clock_gettime, clock, t));
}

// Nanoseconds of the monotonic clock at the resolution of the kernel's tick (1 to 10 ms). Costs a
// few nanoseconds: the C library answers it without a system call.
inline uint64_t CoarseNowNs() {
  struct timespec t;
  if (!ReadClock(CLOCK_MONOTONIC_COARSE, &t)) return 0;
  return static_cast<uint64_t>(t.tv_sec) * 1000000000 + static_cast<uint64_t>(t.tv_nsec);
}

inline uint64_t NowNs(clockid_t clock = CLOCK_MONOTONIC) {
  struct timespec t;
  if (!ReadClock(clock, &t)) return 0;
  return static_cast<uint64_t>(t.tv_sec) * 1000000000 + static_cast<uint64_t>(t.tv_nsec);
}

inline void NapNs(uint64_t ns) {
  struct timespec t = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
  Syscall(__NR_nanosleep, &t, nullptr);
}

}  // namespace undergo::plat
