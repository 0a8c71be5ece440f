// SPDX-License-Identifier: Apache-2.0
// The scheduler in a forked child. See fork.cc.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

// Before a fork: the running M has to live as long as the process, because the kernel sends a
// child's PR_SET_PDEATHSIG when the thread that made it ends.
void NoteFork();
// The same for a clone with these flags. One that shares the memory and has no thread block of its
// own uses the caller's: that thread must not be switched from now on, and keeps its kernel thread.
void NoteClone(unsigned long flags);
// The program traces its children, and their tracer is the kernel thread that made them: who forks
// while there are other threads keeps it. Before the first thread.
void ForkersTrace();
// First of all in the child, on its thread. The scheduler does not run in it.
void AfterForkInChild();

// In Start: forgets a scheduler that ran in an ancestor. Returns the G that the running thread has
// to become: main_g when there was none.
G* ForgetAncestor();
// The running thread ends as a thread of libc, in a child that made no thread since.
[[noreturn]] void EndPlainThread();

}  // namespace undergo::sched
