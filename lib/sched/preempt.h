// SPDX-License-Identifier: Apache-2.0
// Taking the CPU from a G that does not give it up.
#pragma once

#include "sched/sched.h"

namespace undergo::sched {

// Asks the M to let others run. Any thread.
void Preempt(M* m);

}  // namespace undergo::sched
