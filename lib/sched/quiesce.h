// SPDX-License-Identifier: Apache-2.0
// Ends of Ms.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

// If the caller is the only thread: moves it to the process's first kernel thread and ends all
// other Ms and sysmon; they come back with the next thread. True when they are gone.
bool Quiesce();

// Before a fork, which copies what each kernel thread has: when there are very many idle Ms, ends
// them, and waits for that as long as it goes on.
void EndManyIdleMs();

// On sysmon: at its start.
void BeginRetiring();
// At each look: ends Ms that were idle for long. True when sysmon has to end, too.
bool Retire(uint64_t now);
// Something will have to end when it stays as it is.
bool MayRetire();
// A thread was made: sysmon may have ended.
void EnsureSysmon();

}  // namespace undergo::sched
