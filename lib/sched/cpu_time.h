// SPDX-License-Identifier: Apache-2.0
// CPU time of Gs.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

// Nobody pays before somebody asks: from this call on each switch reads the M's CPU clock.
void StartAccounting();
// Nanoseconds that the G has computed since; for the running thread and for others. StartAccounting
// must have been called.
uint64_t CpuTime(G* g);

extern constinit uint32_t accounting;  // atomic; 1: on
// CPU clock of a kernel thread; 0: it is gone.
uint64_t ThreadCpuClock(int tid);
// At a switch of the M of both.
void AccountSwitch(G* from, G* to);

}  // namespace undergo::sched
