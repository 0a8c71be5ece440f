// SPDX-License-Identifier: Apache-2.0
// Small random programs for the threads of the simulation.
#pragma once

#include <cstdint>

namespace undergo::sim {

// One seed; null, or what went wrong. The executor still has its trace then.
const char* RunSeed(uint64_t seed);
// How it came to that.
void Explain();

}  // namespace undergo::sim
