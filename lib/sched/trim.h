// SPDX-License-Identifier: Apache-2.0
// Memory of stacks that is not in use, given back.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

// sysmon, at each look: goes on with its round through all threads. Not in a BusyScope.
void TrimStacks(uint64_t now);
// Whether every thread that has waited since then was looked at, so that sysmon may sleep.
bool StacksTrimmedSince(uint64_t when);

// From now on nothing is trimmed: what that needs is forbidden. Any thread.
void StopTrimming();

// The M that is about to run g waits until nobody is at work on its stack.
UNDERGO_COLD void AwaitTrimmed(G* g);

}  // namespace undergo::sched
