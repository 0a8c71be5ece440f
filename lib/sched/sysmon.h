// SPDX-License-Identifier: Apache-2.0
// The watchdog: takes Ps from Ms that are stuck in the kernel, preempts, makes Ms.
#pragma once

#include "sched/sched.h"

namespace undergo::sched {

// What is to be done by the clock: called by sysmon at each look, and at least once a minute while
// it lives. `now` is CLOCK_MONOTONIC in ns. Set once, before threads exist; null: nothing.
using ClockHook = void (*)(uint64_t now);
extern constinit ClockHook clock_hook;

// The body of sysmon's thread. Returns when it has to end (sched/quiesce.h).
void RunSysmon();

// Called by sysmon every 5 ms or longer while it is awake: signals of the process that all Ms
// block, and a parked thread does not. Set at start.
using SignalHook = void (*)();
extern constinit SignalHook take_signals;

// Called by sysmon when all Ps have been idle for about a second, and every further second that
// it is awake; null: nobody wants to know. Set at start.
using AllIdleHook = void (*)();
extern constinit AllIdleHook on_all_idle;

}  // namespace undergo::sched
