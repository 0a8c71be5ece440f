// SPDX-License-Identifier: Apache-2.0
// Kernel threads that glibc knows nothing of, for the library's own work.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Starts fn(arg) on a thread that shares everything with the process. It has all signals but 33
// blocked, a stack of its own with a guard page, and a thread block in which the library's
// initial-exec variables have their initial values; it must not call libc functions that use errno,
// stdio or locks. `name` is shown by ps (at most 15 characters). Returns its id, or -errno. It ends
// when `fn` returns; its memory is used for the next one or given back then.
long SpawnThread(void (*fn)(void*), void* arg, const char* name);

// Lets such threads run on all CPUs that the caller may use but the one that it is on. Nothing
// changes if that is the only one, or if *cpu, where the caller was at the last call, says that it
// is so already; -1 there for the first time.
void KeepOffOwnCpu(const long* tids, uint32_t count, int* cpu);

// Whether no thread of the process has this id; 0 is nobody's.
bool IsGone(int tid);
// Whether a thread id is that of a running thread made by SpawnThread.
bool IsOwnThread(int tid);
// visit(context, tid) for each of them. They have all signals blocked but 33.
void ForEachOwnThread(void (*visit)(void* context, int tid), void* context);
// How many of them run now.
uint32_t OwnThreadCount();
// visit(context, low, high): the memory (stack and thread block) of each of them, which holds no
// pointer of the program's.
void ForEachOwnStack(void (*visit)(void* context, Addr low, Addr high), void* context);
// The forked child has none of them.
void ForgetOwnThreads();

}  // namespace undergo::plat
