// SPDX-License-Identifier: Apache-2.0
// The number of Ps follows the limits of the container while the program runs, as Go 1.25's does.
#pragma once

#include "sched/sched.h"

namespace undergo::sched {

// What to ask for the number, at most once a second; null: it never changes. Before the start.
using ProcsHook = int (*)();
void ConfigureProcs(ProcsHook ask);

// sysmon. Asks when a second is over, and changes the number of Ps.
void AdaptProcs(uint64_t now);
// sysmon.
void SetProcs(uint32_t n);

}  // namespace undergo::sched
