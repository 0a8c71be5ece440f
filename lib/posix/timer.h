// SPDX-License-Identifier: Apache-2.0
// Timers whose signal is meant for one thread.
#pragma once

#include <signal.h>
#include <time.h>

#include "sched/g.h"

namespace undergo::posix {

// A timer's signal came to a kernel thread: the G that it is meant for; null: anybody.
sched::G* ThreadOfTimer(const siginfo_t& info);
// A thread takes a timer's signal out of its queue. In a SignalSection.
void TimerDelivered(const siginfo_t& info);

// Bodies of timer_create, and of it by syscall() (with errno).
int CreateTimer(clockid_t clock, struct sigevent* e, timer_t* timer);
long TimerCreateCall(clockid_t clock, const struct sigevent* e, int* id);

}  // namespace undergo::posix
