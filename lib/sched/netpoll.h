// SPDX-License-Identifier: Apache-2.0
// Where idle Ms wait for descriptors and deadlines.
#pragma once

#include "sched/sched.h"

namespace undergo::sched {

// Whether anybody waits for a descriptor.
bool NetpollActive();
// Adds the Gs whose descriptors became ready, after at most `ns` (0: at once). Ends early when
// broken. Not for two Ms at a time: the caller holds the right by sched.last_poll, unless ns is 0.
void Netpoll(uint64_t ns, GQueue* ready);
// Makes the M that waits in Netpoll come back.
void NetpollBreak();
void NetpollAfterFork();

}  // namespace undergo::sched
