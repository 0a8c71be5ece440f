// SPDX-License-Identifier: Apache-2.0
// What the program's files tell about it.
#pragma once

#include "base/types.h"

namespace undergo::posix {

// Whether the executable itself refers to this function or variable of some library.
bool ProgramImports(const char* symbol);
// Whether the executable has something at this address. Calls nothing that a program may replace.
bool InExecutable(Addr a);
// Before the constructors of other objects: threads of libgomp that wait do so asleep if there are
// more of them than may run at a time, unless the user said something about it.
void QuietOpenMp(int procs);

}  // namespace undergo::posix
