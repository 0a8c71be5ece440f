// SPDX-License-Identifier: Apache-2.0
// What the program's files tell about it.
#pragma once

namespace undergo::posix {

// Whether the executable itself refers to this function or variable of some library.
bool ProgramImports(const char* symbol);
// Before the constructors of other objects: threads of libgomp that wait do so asleep if there are
// more of them than may run at a time, unless the user said something about it.
void QuietOpenMp(int procs);

}  // namespace undergo::posix
