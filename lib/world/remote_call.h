// SPDX-License-Identifier: Apache-2.0
// System calls on other kernel threads of the process, for what the kernel keeps for each of them
// and libc cannot reach: it does not know the threads of the library itself, nor the first one when
// that runs another thread's block (posix/credentials.cc).
#pragma once

#include "sync/mutex.h"

namespace undergo::world {

// Held around CallOn and whatever has to come in the same order on all threads. Signal 33 has to be
// open while one waits for it.
extern constinit sync::Mutex remote_call_lock;

// The kernel's result of the call on that thread, which is not the caller and has signal 33 open
// now and then; -ESRCH: it has ended. With remote_call_lock held.
long CallOn(int tid, long number, long a, long b, long c);

// In the handler of signal 33: whether it came for a call, which then has been made.
bool AnswerCall(const void* value);

}  // namespace undergo::world
