// SPDX-License-Identifier: Apache-2.0
// CPU clocks of threads, for timers on them.
#pragma once

#include <time.h>

#include <cstdint>

namespace undergo::posix {

// The kernel's name of the clock. Its thread, if it is the calling one, keeps its kernel thread
// from now on. A name that the kernel does not know: another thread's that has not.
clockid_t KernelClockOf(clockid_t clock);
// How far the clock is ahead of the kernel's, which shows what the kernel thread has computed for
// others, too; nanoseconds. For one that KernelClockOf has named.
int64_t AheadOfKernel(clockid_t clock);

}  // namespace undergo::posix
