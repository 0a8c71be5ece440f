// SPDX-License-Identifier: Apache-2.0
// Handlers of ours in the place of signals' default actions.
#pragma once

#include <signal.h>

#include <cstdint>

namespace undergo::posix {

using DefaultAction = void (*)(int sig, siginfo_t* info, void* context);

// While the program neither handles nor ignores the signal, this handler runs instead of the
// default action, with all signals blocked but 33. The program sees the default action. `now`: from
// here on, else from WatchDumpSignal on. At start.
void ReplaceDefaultAction(int sig, DefaultAction action, bool now);
// The program makes its first thread.
void WatchDumpSignal();
// Bit (sig - 1) is set while the handler of the signal that the kernel knows is such a one.
uint64_t ReplacedSignals();

// The program is about to make its first thread, with the scheduler: overflows of stacks are told
// from now on, if the program has nothing of its own that this might disturb.
void WatchOverflows();

}  // namespace undergo::posix
