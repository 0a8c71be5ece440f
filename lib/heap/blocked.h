// SPDX-License-Identifier: Apache-2.0
// Calls that take long without running code of the program: meanwhile the thread counts as stopped.
// A G keeps its M and its P: it may be in the middle of a malloc.
//
// Two uses. A thread that waits for the collector: to be asked to stop it would have to be woken
// up, which on an idle CPU of a virtual machine may take milliseconds. And the first write to a
// huge page: the kernel clears all of it, and the host may have to find the memory first.
#pragma once

namespace undergo::heap {

// fn(args[0], ..., args[5]). In a BusyScope, and until world/ sets it, a plain call. What `fn` does
// must be harmless while the world is stopped (world/blocked_call.h). A handler of the program that
// comes in the call may leave it for good, except in a HookScope.
long CallPlainly(void* fn, const long args[6]);
using BlockedHook = long (*)(void* fn, const long args[6]);
extern constinit BlockedHook call_blocked;

template <typename... P, typename... A>
long CallBlocked(long (*fn)(P...), A... args) {
  static_assert(sizeof...(A) <= 6);
  const long words[6] = {(long)static_cast<P>(args)...};
  return call_blocked(reinterpret_cast<void*>(fn), words);
}

}  // namespace undergo::heap
