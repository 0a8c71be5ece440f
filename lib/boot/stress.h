// SPDX-License-Identifier: Apache-2.0
// UNDERGO=stress=...: for tests of the library and of programs that must live under it.
#pragma once

namespace undergo::boot {

// Starts what options.stress names; nothing for off.
void StartStress();

}  // namespace undergo::boot
