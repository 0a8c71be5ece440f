// SPDX-License-Identifier: Apache-2.0
// Calls that may block the kernel thread: the M keeps its G, sysmon may give the P to another M.
#pragma once

#include "sched/g.h"

// fn(args[0], ..., args[5]) between EnterCall and ExitCall of a G: a thread that is cancelled in it
// leaves the call on its way out.
extern "C" __attribute__((visibility("hidden"))) long undergo_sched_call(void* fn,
                                                                         const long args[6]);

namespace undergo::sched {

// Around such a call. Both do nothing for threads without a G (Current() is null); `g` is the
// result of the first. Between the two the thread has no P for sure: it must not call into the
// scheduler, nor run code of the program.
G* EnterCall();
void ExitCall(G* g);

// A handler of the program begins inside of such a call, or the thread is unwound out of it:
// ends the call early. Returns what ReturnToCall takes after the handler: the G, or null.
G* LeaveCallEarly();
void ReturnToCall(G* g);

// As EnterCall, for calls that are known to last: the P goes to another M at once.
G* EnterLongCall();

// The same for calls whose child process borrows the caller's stack and thread block, or that
// change the kernel's signal mask meanwhile: handlers in the call do not leave it either.
G* EnterHeldCall();
void ExitHeldCall(G* g);

// Around a wait for an object that other processes share, which only the kernel knows how to end:
// its M does not count against the limit of Ms.
class SharedWait {
 public:
  SharedWait();
  ~SharedWait();
  SharedWait(const SharedWait&) = delete;
  SharedWait& operator=(const SharedWait&) = delete;
};

// From now on the running G keeps its kernel thread for itself and needs no P: what libc and the
// kernel keep for each kernel thread is its own. For good. The fallback for everything that
// a user-level thread cannot honour.
void Pin();
// The same on the M on which the G has forked last, if it has: to the kernel that is the parent.
void PinAsParent();
// Whether it is pinned already, or a plain thread.
bool IsPinned();

}  // namespace undergo::sched
