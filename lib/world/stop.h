// SPDX-License-Identifier: Apache-2.0
// What the parts of world/ share about a running stop.
#pragma once

#include <ucontext.h>

#include "world/blocked_call.h"
#include "world/record.h"

namespace undergo::world {

// Waits until no stop is running. Any thread, at any place where it may wait.
void WaitForStart();

// The thread answers: its sp and frame are set. Returns when the world runs. `state` is what the
// record's state was; false when the request was withdrawn meanwhile.
bool AnswerStop(Record* r, uint32_t state);

// signal.cc: the stop signal.
constexpr int kStopSignal = 33;
// Installs the handler, or again if somebody else's stands there: then true.
bool EnsureHandler();
// What a thread blocks while it is stopped: all that the program handles. As of the last call of
// EnsureHandler.
uint64_t MaskWhileStopped();
// From now on SIGCHLD is among it. Any thread, before the program's own handler is installed.
void BlockChildSignal();
// 0 or -errno.
long SendStopSignal(Record* r);
// The same signal with any other value, for the scheduler.
long SendStopSignal(int tid, void* value);
// What to do with it; false: the value is unknown. Runs with all signals blocked that have a
// handler. Set before one is sent.
using QueuedSignalHook = bool (*)(void* value, ucontext_t* context);
extern constinit QueuedSignalHook on_queued_signal;
// The same: the thread block that libc made for the running kernel thread, when the thread pointer
// is another; else 0. libc's part of signal 33 looks there for what it is to do.
using OwnBlockHook = Addr (*)();
extern constinit OwnBlockHook own_block;
void PrepareSignals();

// tasks.cc: what /proc/self/task says. All with records_lock held.
// Threads of the process by its link count; negative when it cannot be read.
long TaskCount();
// Makes the records agree with /proc/self/task: new ones are handed to `found`, ended ones dropped.
// False when it cannot be read or does not list the caller.
bool ListTasks(void (*found)(Record* r));
enum class Fate : uint8_t { kAlive, kGone, kNoUserCode };
// What became of a thread that does not answer.
Fate FateOf(const Record* r);
// The thread is late because it waits for a CPU: it is runnable, and got next to no CPU time since
// it was first late with the signal that it has.
bool WaitsForCpu(Record* r);
// Whether /proc/self/task names a thread as a worker of the kernel, or as ended.
bool HasNoUserCode(int tid);

// Threads registered by RegisterWorker that plat does not know.
uint32_t ForeignWorkerCount();
bool IsWorker(int tid);

}  // namespace undergo::world
