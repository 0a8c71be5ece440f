// SPDX-License-Identifier: Apache-2.0
// Blocking calls as places where a thread counts as stopped.
//
// BlockedCall calls a function of libc with up to six integer arguments. Around the call the
// thread's stack pointer is published, with all callee-saved registers and all arguments on the
// stack above it, so that a stop of the world needs nothing from the thread, and the call is not
// interrupted by a signal of ours. What the wrapped function does by itself while the world is
// stopped must be harmless: it may write what the kernel delivers and libc's own locks, it must not
// run code of the program, nor unmap or reuse memory. (So pthread_join is not wrapped.)
//
// The program's signal handlers do run inside of blocked calls: whoever starts one uses
// LeaveForHandler and ReturnFromHandler. A cancelled thread unwinds through the call; the frame's
// personality routine withdraws what was published before any cleanup of the program runs.
#pragma once

#include "world/record.h"

// fn(args[0], ..., args[5])
extern "C" __attribute__((visibility("hidden"))) long undergo_world_blocked_call(
    void* fn, const long args[6]);

// Bit 0: a stop is running or the world is stopped. Bit 1: the kernel has no barrier for all
// threads (membarrier), so that every blocked call goes through its slow half, which has one.
extern "C" __attribute__((visibility("hidden"))) uint32_t undergo_world_stopping;

namespace undergo::world {

constexpr uint32_t kStopping = 1;
constexpr uint32_t kNeedFence = 2;
UNDERGO_COLD void WaitOutStopSlow();

// Set once by EnablePublishing. Off: the wrappers jump to the real function.
extern constinit bool publishing;

template <typename R, typename... P, typename... A>
UNDERGO_INLINE R BlockedCall(R (*fn)(P...), A... args) {
  static_assert(sizeof...(A) <= 6);
  const long words[6] = {(long)args...};
  return static_cast<R>(undergo_world_blocked_call(reinterpret_cast<void*>(fn), words));
}

// The running thread's record if it is inside of a blocked call, else null. For signal handlers.
inline Record* InBlockedCall() {
  auto* r = static_cast<Record*>(heap::thread_words.record);
  return r != nullptr && LoadRelaxed(&r->blocked_sp) != 0 ? r : nullptr;
}

// A handler of the program begins on a thread that may be just about to leave a blocked call, for
// which a stop counted it: waits until the world runs. Not in a slow path of the heap: the stop
// waits for the end of that.
inline void WaitOutStop() {
  if (UNDERGO_UNLIKELY(LoadRelaxed(&undergo_world_stopping) != 0)) WaitOutStopSlow();
}

// A handler of the program begins on a thread in a blocked call: waits until the world runs. The
// result goes to ReturnFromHandler; 0: the record is not this thread's. A handler that jumps away
// leaves the call for good.
Addr LeaveForHandler(Record* r);
void ReturnFromHandler(Record* r, Addr saved);

}  // namespace undergo::world
