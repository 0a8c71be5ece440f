// SPDX-License-Identifier: Apache-2.0
// Call chains by call frame information. No lock, no allocation, safe in signal handlers.
#pragma once

#include "base/fmt.h"
#include "base/types.h"

namespace undergo::plat {

// Return addresses of the callers of this library, innermost first; how many there are, at most
// `max`. Ends early at code without call frame information, at a signal frame, and on C libraries
// older than 2.35. About 10 ns for each frame that was seen before.
uint32_t Backtrace(Addr* pcs, uint32_t max);
// From a point that was interrupted: the first address is `pc` itself, unless the library is there.
uint32_t BacktraceFrom(Addr pc, Addr sp, Addr bp, Addr* pcs, uint32_t max);

// Appends "0xADDRESS (module+0xoffset) < ...", the callee first.
void DescribeBacktrace(const Addr* pcs, uint32_t count, Fmt* out);

// Code was unloaded, or other code came into its place.
void ForgetFrames();

}  // namespace undergo::plat
