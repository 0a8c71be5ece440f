// SPDX-License-Identifier: Apache-2.0
// Stops every other thread of the process, shows its stack and registers, lets it go on.
//
// The stopper is a thread of the program or one made by plat::SpawnThread; it must not hold a lock
// that the program's threads need to reach a safe point (a BusyScope of theirs is never
// interrupted: the stop waits for its end). A second stopper waits for the end of the first one's
// stop, and is stopped by it if it is a thread of the program: it must not be busy.
#pragma once

#include "base/types.h"

namespace undergo::world {

// Where the handlers that we install by system calls return to.
Addr SigReturn();

struct StoppedThread {
  int tid;
  Addr sp;  // lowest address of the stack that matters; the red zone is already subtracted
  // Bounds of the stack that contains sp, high exclusive; what lies below sp is dead. Equal when
  // unknown (a coroutine's stack, an alternate stack, a thread that libc did not make).
  Addr stack_low, stack_high;
  // The kernel's signal frame, from ucontext to the end of the XSAVE area. Null when the thread
  // stopped by itself: its registers then lie on its stack at or above sp.
  const void* frame;
  size_t frame_size;  // bytes
  Addr altstack;      // alternate signal stack; 0 when none or unknown
  size_t altstack_size;
  // For call chains, without a frame: where it is at sp, and its rbp. pc 0: at sp is the frame that
  // undergo_world_blocked_call makes.
  Addr pc, bp;
};

enum class StopResult : uint8_t {
  kStopped,
  kGaveUp,  // somebody did not stop in time, or /proc cannot be read; everybody runs again
};

// Stops all threads except the caller and the threads of the library itself, within the budget; if
// by then the missing threads only wait for a CPU, which others use, within `patience_ns`.
StopResult StopTheWorld(uint64_t budget_ns, uint64_t patience_ns = 0);
void StartTheWorld();
// World stopped: visit(context, thread) for each stopped thread.
void ForEachStopped(void (*visit)(void* context, const StoppedThread& t), void* context);
template <typename F>
void ForEachStopped(F f) {
  ForEachStopped([](void* context, const StoppedThread& t) { (*static_cast<F*>(context))(t); }, &f);
}
// "Stopping" time of the last stop: from the first signal to the last answer.
uint64_t LastStopNs();
// Threads of the program that are known now.
uint32_t ThreadCount();
bool IsStopped();

// Stacks of threads that do not run now, in memory that is mapped like any other: of the one around
// `at`, what lies below `live` is dead, up to `end`. Not in one: live is 0, and `end` is where the
// next one may begin. Exact while the world is stopped; else a thread may have gone on since.
struct ParkedStack {
  Addr live, end;
};
using ParkedHook = ParkedStack (*)(Addr at);
// Null without a scheduler. Set once, by the scheduler's start.
extern constinit ParkedHook parked_stack;

// Called at the end of the outermost BusyScope when a stop waits for it (heap::on_busy_end).
void StopHere();

// Around a wait of the calling thread: between the two it counts as stopped. The caller has spilled
// its callee-saved registers (__builtin_unwind_init) and holds no BusyScope. Not nested.
void EnterBlocked();
void LeaveBlocked();

// Makes the wrapped blocking calls and thread starts publish their state (see blocked_call.h).
// Called once at start, before threads exist, unless the collector is off.
void EnablePublishing();

// Called once before the first stop: installs the signal handler. Before that nothing is installed.
void StartTracking();

// Threads of the collector, never stopped. Those made by plat::SpawnThread are known anyway.
void RegisterWorker(int tid);
void UnregisterWorker(int tid);

// The forked child: only the caller exists, the world runs.
void AfterForkInChild();

}  // namespace undergo::world
