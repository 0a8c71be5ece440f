// SPDX-License-Identifier: Apache-2.0
// Start and end of the library in a process.
#pragma once

namespace undergo::boot {

// Runs once, before the constructors of all other objects.
void Start(int argc, char** argv, char** envp);

}  // namespace undergo::boot
