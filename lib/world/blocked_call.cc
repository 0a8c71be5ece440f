// SPDX-License-Identifier: Apache-2.0
// The slow halves of blocked calls. The fast ones are in x86_64/blocked_call.S:
//
//   thread:   blocked_sp = sp;  stopping set? -> Enter     ...call...
//             blocked_sp = 0;   stopping set? -> Leave
//   stopper:  stopping = 1;  barrier on all CPUs;  blocked_sp set? -> it is stopped, else signal
//
// A thread that finds a stop on its way in waits here for its end, so that a signal that is already
// under way arrives here and not in the call. One that finds a stop on its way out waits with its
// stack pointer published again.
#include "world/blocked_call.h"

#include "heap/blocked.h"
#include "plat/futex.h"
#include "plat/syscall.h"
#include "world/foreign.h"
#include "world/stop.h"
#include "world/world.h"

namespace undergo::world {

constinit bool publishing = false;

namespace {

// Begins with a full barrier between what was published and the look at `stopping`, which is needed
// where the stopper has none for all threads.
bool StopRuns() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if ((LoadAcquire(&undergo_world_stopping) & kStopping) == 0) return false;  // pairs: Barrier
  // A child forked in the middle of a stop by a bare system call has nobody to wait for. One of
  // vfork has, but it may only make its way to exec.
  return plat::Syscall(__NR_getpid) == process_id;
}

// A stop was given up, but its signal may still come: here is better than in the call.
void AwaitSignal(Record* r) {
  constexpr int kTries = 100;  // the thread may have blocked it by a raw system call
  for (int i = 0; i < kTries && LoadAcquire(&r->signalled) != 0; ++i) {  // pairs: OnStopSignal
    plat::Syscall(__NR_getpid);
  }
}

// With r->blocked_sp set.
void Enter(Record* r) {
  while (StopRuns()) WaitForStart();
  if (LoadAcquire(&r->signalled) != 0) AwaitSignal(r);  // pairs: OnStopSignal
}

// Ends with r->blocked_sp == after.
void Leave(Record* r, Addr sp, Addr after) {
  StoreRelease(&r->blocked_sp, after);  // pairs: Request
  while (StopRuns()) {
    StoreRelease(&r->blocked_sp, sp);  // pairs: Request
    WaitForStart();
    StoreRelease(&r->blocked_sp, after);  // pairs: Request
  }
}

}  // namespace

void WaitOutStopSlow() {
  if (heap::thread_words.busy != 0) return;
  while (StopRuns()) WaitForStart();
}

Addr LeaveForHandler(Record* r) {
  if (OwnRecord() != r) return 0;
  Addr saved = r->blocked_sp;
  Leave(r, saved, 0);
  return saved;
}

void ReturnFromHandler(Record* r, Addr saved) {
  if (saved == 0) return;
  StoreRelease(&r->blocked_sp, saved);  // pairs: Request
  Enter(r);
}

void EnterBlocked() {
  Record* r = OwnRecord();
  if (r == nullptr || heap::thread_words.busy != 0) return;
  StoreRelease(&r->blocked_sp,
               reinterpret_cast<Addr>(__builtin_frame_address(0)));  // pairs: Request
  Enter(r);
}

void LeaveBlocked() {
  Record* r = InBlockedCall();
  if (r == nullptr || OwnRecord() != r) return;
  Leave(r, r->blocked_sp, 0);
}

namespace {

// In the scheduler nothing is published: what is on the stack there is not the program's.
long CallBlocked(void* fn, const long args[6]) {
  return heap::thread_words.in_sched == 0 ? undergo_world_blocked_call(fn, args)
                                          : heap::CallPlainly(fn, args);
}

}  // namespace

void EnablePublishing() {
  heap::call_blocked = CallBlocked;
  RecordMainThread();
  MarkOwnMemory();
  publishing = true;
}

}  // namespace undergo::world

using undergo::Addr;
using undergo::world::Record;

// For x86_64/blocked_call.S.
extern "C" {
#define UNDERGO_HIDDEN __attribute__((visibility("hidden")))
UNDERGO_HIDDEN Record* undergo_world_own_record() { return undergo::world::OwnRecord(); }

UNDERGO_HIDDEN void undergo_world_enter(Record* r) { undergo::world::Enter(r); }

UNDERGO_HIDDEN void undergo_world_leave(Record* r, Addr sp, Addr after) {
  undergo::world::Leave(r, sp, after);
}

// Unwinders call it for the frame of a blocked call, before they go on to the frames of the
// program: a cancelled thread, or an exception out of a handler. 8: continue.
UNDERGO_HIDDEN int undergo_world_personality(int, int actions, uint64_t, void*, void*) {
  constexpr int kCleanupPhase = 2;
  if ((actions & kCleanupPhase) != 0) undergo::world::LeaveBlocked();
  return 8;
}
}

static_assert(offsetof(Record, blocked_sp) == 0 && offsetof(Record, own_low) == 8 &&
              offsetof(Record, own_size) == 16);
static_assert(offsetof(undergo::heap::ThreadWords, busy) == 8 &&
              offsetof(undergo::heap::ThreadWords, record) == 24);
