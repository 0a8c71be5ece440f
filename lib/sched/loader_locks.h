// SPDX-License-Identifier: Apache-2.0
// The dynamic loader's locks, of which a thread that is switched out must hold none.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

// Before the first preemption, on a thread of libc's. Takes a lock of the loader.
void FindLoaderLocks();
// Whether the running thread holds one. In a signal handler, too.
bool HoldsLoaderLock(const G* g);
// Before the running thread is switched out against its will: whoever waits for a wake-up that it
// owes or has just had goes on.
void PassLoaderWakes();

}  // namespace undergo::sched
