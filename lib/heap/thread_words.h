// SPDX-License-Identifier: Apache-2.0
// What the heap keeps for each thread: one block of thread-local words.
#pragma once

#include <cstdint>

#include "base/atomic.h"
#include "base/compiler.h"

namespace undergo::heap {

struct MCache;

enum HandledBits : uint32_t { kHandlerRan = 1, kHandlerWithoutRestart = 2 };

// Per-thread words. `busy` counts entries into slow paths: a signal handler that finds it set must
// not touch the mcache. `exited` says that the thread gave its mcache back for good. `stop_pending`
// says that the world waits for the end of the outermost BusyScope; the thread itself sets it, in
// the handler of the stop signal.
struct ThreadWords {
  MCache* mcache;
  uint32_t busy;
  uint32_t exited;
  uint32_t in_mheap;  // the thread may hold the page heap's lock
  uint32_t stop_pending;
  void* record;  // world/'s record of the thread (world/record.h), null until it has one
  // Of the scheduler, set while the thread is not running or by itself (sched/g.h).
  void* g;            // the G that may be switched away from; null: there is none
  void* self;         // the G that this block belongs to, whatever its state; null: none
  uint32_t in_sched;  // above 0: inside of the scheduler, handlers of the program have to wait
  uint32_t deferred;  // atomic; 1: a handler waits for the end of that. Written by anybody
  uint32_t handled;   // HandledBits: handlers of the program that ran since the last Waiter::Arm
  void* waiter;       // the armed Waiter, until it is out of its queue: handlers have to wait, too
  uintptr_t resume;   // a preempted thread goes on there; 0: none (sched/x86_64/preempted.S)
  // posix/ceiling.cc; the thread itself.
  void* ceilings;     // held mutexes that raise its priority; null: none
  int base_priority;  // what it has without them
  // posix/jump.cc; the thread itself.
  void* interrupted;     // the innermost handler that came in a slow path; null: none
  uint32_t in_hook;      // calls of the collector by the allocator, which are no BusyScope
  uint32_t jump_below;   // a jump waits for `busy` and `in_hook` to fall below this; 0: none
  uint32_t jump_value;   // what it gives to setjmp
  uint64_t jump_to[10];  // where it goes: what the buffer held
};
#ifdef UNDERGO_SIMULATION  // tests/sim: several simulated threads in one kernel thread
extern ThreadWords* running_words;
#define thread_words running_words[0]
#else
extern UNDERGO_TLS ThreadWords thread_words;
#endif

// Called when `busy` falls to 0 while `stop_pending` is set. Set by world/ before it ever sets
// that.
using BusyEndHook = void (*)();
extern constinit BusyEndHook on_busy_end;
// The same for `jump_below`, which posix/ sets.
extern constinit BusyEndHook on_jump;

// Somebody waits for the end of a BusyScope, or of a call of the collector.
inline void TellBusyEnd() {
  if (thread_words.busy == 0 && thread_words.stop_pending != 0) on_busy_end();
  if (thread_words.busy + thread_words.in_hook < thread_words.jump_below) on_jump();
}

inline void EndBusy() {
  CompilerFence();
  thread_words.busy--;
  CompilerFence();  // the stop signal sees either busy or this end of it
  if (UNDERGO_UNLIKELY((thread_words.stop_pending | thread_words.jump_below) != 0)) TellBusyEnd();
}

class BusyScope {
 public:
  BusyScope() {
    thread_words.busy++;
    CompilerFence();
  }
  ~BusyScope() { EndBusy(); }
  BusyScope(const BusyScope&) = delete;
  BusyScope& operator=(const BusyScope&) = delete;
};

}  // namespace undergo::heap
