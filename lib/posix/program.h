// SPDX-License-Identifier: Apache-2.0
// What the program's files tell about it.
#pragma once

namespace undergo::posix {

// Whether the executable itself refers to this function or variable of some library.
bool ProgramImports(const char* symbol);

}  // namespace undergo::posix
