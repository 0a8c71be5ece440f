// SPDX-License-Identifier: Apache-2.0
// "All threads are asleep": UNDERGO=deadlock=.
#pragma once

namespace undergo::diag {

// From now on, when nothing can wake any thread of the scheduler again, the fact is told once, with
// a dump; with `abort` the process dies of SIGABRT then.
void WatchForDeadlock(bool abort);

}  // namespace undergo::diag
