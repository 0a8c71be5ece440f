// SPDX-License-Identifier: Apache-2.0
// Debuggers.
#pragma once

namespace undergo::diag {

// Before the process ends: lets a debugger finish letting the threads go on. Returns at once when
// there is none, or no scheduler.
void AwaitTracer();

}  // namespace undergo::diag
