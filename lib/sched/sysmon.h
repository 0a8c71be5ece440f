// SPDX-License-Identifier: Apache-2.0
// The watchdog: takes Ps from Ms that are stuck in the kernel, preempts, makes Ms.
#pragma once

#include "sched/sched.h"

namespace undergo::sched {

// The body of sysmon's thread. Returns when it has to end (sched/quiesce.h).
void RunSysmon();

}  // namespace undergo::sched
