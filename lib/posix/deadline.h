// SPDX-License-Identifier: Apache-2.0
// Points in time as programs name them, for sched::Waiter.
#pragma once

#include <errno.h>
#include <time.h>

#include <cstdint>

#include "plat/clock.h"

namespace undergo::posix {

inline bool IsValid(const struct timespec* t) { return t->tv_nsec >= 0 && t->tv_nsec < 1000000000; }

inline uint64_t ToNs(const struct timespec* t) {
  constexpr auto kMost = uint64_t{1} << 62;
  if (t->tv_sec < 0) return 0;
  auto seconds = static_cast<uint64_t>(t->tv_sec);
  return seconds > kMost / 1000000000 ? kMost
                                      : seconds * 1000000000 + static_cast<uint64_t>(t->tv_nsec);
}

// An absolute time of a clock as a deadline, never sched::kNever. 0 or EINVAL.
inline int DeadlineOf(clockid_t clock, const struct timespec* t, uint64_t* deadline) {
  if (!IsValid(t)) return EINVAL;
  uint64_t when = ToNs(t);
  if (clock != CLOCK_MONOTONIC) {
    uint64_t now = plat::NowNs(clock);
    if (now == 0) return EINVAL;
    uint64_t left = when > now ? when - now : 0;
    when = plat::NowNs() + left;
  }
  *deadline = when != 0 ? when : 1;
  return 0;
}

}  // namespace undergo::posix
