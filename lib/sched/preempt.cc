// SPDX-License-Identifier: Apache-2.0
#include "sched/preempt.h"

namespace undergo::sched {

void Preempt(M*) {}

}  // namespace undergo::sched
