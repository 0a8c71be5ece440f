// SPDX-License-Identifier: Apache-2.0
// Under a filter of system calls that forbids some of the scheduler's own. See confine.cc.
#pragma once

#include "base/atomic.h"

namespace undergo::sched {

// What must not be called any more.
enum Confinement : uint32_t {
  kConfined = 1,       // anything that is not in the next two, but for memory and futexes
  kNoMaskCalls = 2,    // rt_sigprocmask
  kNoThreadCalls = 4,  // clone and what the start of a thread needs
};
extern constinit uint32_t confinement;  // atomic

inline bool IsConfined() { return LoadRelaxed(&confinement) != 0; }
inline bool MayChangeMasks() { return (LoadRelaxed(&confinement) & kNoMaskCalls) == 0; }
inline bool MayMakeThreads() { return (LoadRelaxed(&confinement) & kNoThreadCalls) == 0; }

// Before such a filter is installed. Any thread; may wait.
void Confine(uint32_t what);
// sysmon: makes what Confine wants. True when it did something.
bool MakeConfinedMs();

}  // namespace undergo::sched
