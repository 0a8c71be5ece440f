// SPDX-License-Identifier: Apache-2.0
// Where an interrupted malloc goes on.
//
// Taking a slot (TakeLowestBit, heap/fastpath.h) is a sequence of instructions with one effect, its
// last one. The section undergo_restart lists all copies of it. Who interrupts a thread inside one
// and may change the cursor before it goes on, sets it back to the first instruction.
#pragma once

#include "base/types.h"

// Bounds of the section, made by the linker: pairs of self-relative offsets.
extern "C" {
extern const int32_t __start_undergo_restart[] __attribute__((weak, visibility("hidden")));
extern const int32_t __stop_undergo_restart[] __attribute__((weak, visibility("hidden")));
}

namespace undergo::heap {

// The start of the sequence that `ip` is inside of, else `ip`.
inline Addr RestartPoint(Addr ip) {
  for (const int32_t* p = __start_undergo_restart; p < __stop_undergo_restart; p += 2) {
    Addr start = reinterpret_cast<Addr>(p) + static_cast<Addr>(static_cast<intptr_t>(p[0]));
    Addr end = reinterpret_cast<Addr>(p + 1) + static_cast<Addr>(static_cast<intptr_t>(p[1]));
    if (ip > start && ip < end) return start;
  }
  return ip;
}

}  // namespace undergo::heap
