// SPDX-License-Identifier: Apache-2.0
// A dump of every thread, in the manner of Go's goroutine dump: state, what it waits for and since
// when, and its call chain with names.
#pragma once

#include "base/types.h"

namespace undergo::diag {

// Prints the dump. On a thread of its own that libc made: it stops the world, and asks the loader
// for names. `title` is its first line, null for none.
void DumpThreads(const char* title);

// The same from anywhere, also from a signal handler: sysmon makes the thread. False when the
// scheduler does not run. `then` is called on that thread at the end, unless it is null.
bool RequestDump(const char* title, void (*then)());

}  // namespace undergo::diag
