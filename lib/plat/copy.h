// SPDX-License-Identifier: Apache-2.0
// A copy of the process that the program cannot see: its memory as it is at this moment, frozen.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Like fork, for threads made by SpawnThread: returns 0 in the copy, its process id in the caller,
// or minus an error number (EAGAIN: too many processes; ENOMEM; EPERM: refused by a filter). The
// copy has one thread, no open descriptor and all signals blocked; it is the first to go when
// memory runs out, and ends when the caller's thread does. It must end by EndCopy. The program is
// not told about its end and cannot wait for it by accident (but by __WALL).
long CopyProcess();
[[noreturn]] void EndCopy();

// Whether the copy has ended; its remains are gone then, and it must not be asked again. With
// `wait` returns true only. One that somebody else has waited for counts as ended.
bool CopyHasEnded(long id, bool wait);
void KillCopy(long id);

// Test seam: when set, called by CopyProcess; an error number that is not 0 makes it fail.
using CopyFailureHook = int (*)();
extern constinit CopyFailureHook copy_failure_hook;

}  // namespace undergo::plat
