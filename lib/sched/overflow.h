// SPDX-License-Identifier: Apache-2.0
// Alternate signal stacks of our own, on which the overflow of a thread's stack can be told.
#pragma once

#include <signal.h>

#include "sched/m.h"

namespace undergo::sched {

// Whether Ms have one while their G has none. Changed by posix/: only as long as the program has no
// alternate stack, for it is not to see ours.
extern constinit bool own_alt_stacks;

// Size: the low end of the M's own stack. Touched from its end; a signal frame has up to 12 KiB.
constexpr size_t kAltSize = 64 * kKiB;

// The running kernel thread, an M, gets one, if that is wanted and its G has none.
void GiveAltStack(M* m);
// In a forked child, which has no M; `was` is the one that the thread ran on, null when unknown.
void DropOwnAltStack(const M* was);
// What the kernel should know for a G without one, on this M.
stack_t AltStackOf(const M* m);
// Whether this one is ours.
bool IsOwnAltStack(const stack_t& s);
// Whether the caller's frame is on that of the M.
bool OnOwnAltStack(const M* m);

// In a handler of SIGSEGV: prints a line if the running thread has overflowed its stack.
void TellOverflow(const siginfo_t* info);

}  // namespace undergo::sched
