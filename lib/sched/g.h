// SPDX-License-Identifier: Apache-2.0
// G: a thread of the program as the scheduler sees it.
//
// A G has a stack, a true glibc thread block (sched/tcb.h) and the fields below. For the Gs that
// pthread_create makes they lie together in one slot of the stack range (sched/stack.h), the G at
// its top, so that a G needs no memory of its own and everything in it is a root of the collector.
// The main thread's G and the Gs of the Ms' own stacks (g0) lie in static and mapped memory.
//
//   kIdle ------> kRunnable <------> kRunning ------> kDead ------> kIdle
//                     ^                 |  ^
//                     |                 v  |
//                     +---- kWaiting <--+  +--> kSyscall (an M without a P; back by itself, or
//                                                 through kRunnable when no P is free)
//   kRunning ---> kPinned, for good: the G has its kernel thread for itself and needs no P
//
// A G that leaves its M may be made runnable before its registers are saved: whoever wants to
// switch to it waits until on_cpu is 0, which is the first act of the M's next context.
#pragma once

#include "base/atomic.h"
#include "base/compiler.h"
#include "base/types.h"
#include "heap/thread_words.h"

namespace undergo::sched {

struct M;
struct P;

enum class GState : uint8_t { kIdle, kRunnable, kRunning, kSyscall, kWaiting, kPinned, kDead };

// Why a G waits, for dumps and traces. Names in sched/park.cc.
enum class WaitReason : uint8_t {
  kNone,
  kSleep,
  kMutex,
  kCond,
  kSemaphore,
  kRwlock,
  kBarrier,
  kOnce,
  kJoin,
  kFutex,
  kIoRead,
  kIoWrite,
  kPoll,
  kSignal,
  kCount,
};

// What ended a wait.
enum class Wake : uint32_t {
  kNone,   // no wait
  kArmed,  // not ended yet
  kReady,
  kTimeout,
  kInterrupted,  // a signal or a cancellation wants the thread's attention
};

// A deadline in a P's heap (sched/timer.h). Zero index: not in a heap.
struct Timer {
  uint64_t when;   // monotonic nanoseconds; TimerHeap::lock of p
  uint32_t index;  // place in the heap, from 1; TimerHeap::lock of p
  P* p;            // whose heap; written by the G that waits, before it enters the heap
};

struct G {
  // --- switching; written by the M that runs the G, or before it runs ---
  Addr sp;                   // saved context, valid while on_cpu is 0 and the G does not run
  Addr fs;                   // its thread pointer; constant
  heap::ThreadWords* words;  // in its TLS; constant
  M* m;                      // the M that runs it, stale otherwise
  uint32_t on_cpu;           // atomic; 1 until the registers are saved
  uint32_t trimming;         // atomic; 1: sysmon gives back what its stack does not use (trim.h)

  GState state;    // written by who holds the G: its M, or who took it out of a queue
  WaitReason why;  // written by the G before it waits
  bool main;       // the process's first thread; constant
  bool g0;         // the stack on which an M looks for work; constant

  // --- waiting; see sched/park.h ---
  uint32_t wake;        // atomic, Wake: what ended the wait; kArmed: nothing yet
  uint32_t interrupts;  // atomic; above 0: waits end at once (a signal or a cancellation is there)
  const Addr* preempted;  // what undergo_preempted saved, null: it gave way by itself. For dumps
  uint64_t since;         // monotonic ns of the tick at which the wait began; written by the G
  uint64_t trim_seen;     // `since` of the wait that sysmon looked at; sysmon
  Timer timer;

  G* next;  // in a run queue, a free list or a list of ready Gs; whoever holds the list

  // --- identity ---
  int tid;          // glibc's id of the thread: kernel's for main, else above 2^22
  uint64_t goid;    // counts up, for dumps; written when a thread begins
  G* all_next;      // every G slot ever made; constant
  Addr stack_low;   // usable stack without guard; constant while the thread lives
  Addr stack_high;  // end of the stack: here the thread block begins, or the program's stack ends
  Addr scan_low;   // what the collector reads of it, thread block included; below the stack pointer
  Addr scan_high;  // it is dead. Equal: unknown
  size_t stack_size;  // from stack_low on, as pthread_getattr_np tells it
  Addr guard_low;     // the guard, which ends where the stack begins. Of the slot
  size_t guard_size;
  uint8_t slot_shift;  // log2 of the slot's bytes; 0: not in the stack range
  bool user_stack;     // the stack is the program's own

  // --- end of the thread; see sched/thread.cc ---
  uint32_t detached;  // atomic; 1: nobody joins; 2: somebody does
  void* joiner;       // atomic; Waiter* of the thread in pthread_join, Ended() when it is over
  void* (*start)(void*);
  void* arg;
  bool c11;  // start is a thrd_start_t

  M* forked_on;  // M on which it forked last, for the kernel the tracer of its children; the G
                 // itself
  bool held;     // a child of vfork uses its stack and block, or libc changes its M's signal mask:
                 // also handlers stay on the M; written by the G itself

  // --- what belongs to a kernel thread elsewhere; see posix/ ---
  uint64_t mask;  // signals that the thread blocks; written by the G itself (sched/masks.h)
  Addr alt_low;   // its alternate signal stack, 0: none; written by the G itself
  size_t alt_size;
  int alt_flags;        // SS_AUTODISARM or 0
  bool mask_unsure;     // libc may change the mask without us: ask the kernel at each switch
  uint64_t handling;    // atomic; blocked only until a handler of this thread returns; its own
  Addr left_handler;    // where it went on after its last handler; its own, and its M's handlers
  uint64_t pending;     // atomic; signals sent to this thread that wait (bit sig - 1)
  void* signals;        // their infos, oldest first; posix/signal_queue.cc, under its lock
  uint64_t waits_for;   // atomic; in sigwait for these; written by itself, under the same lock
  uint32_t wait_pokes;  // signals sent to its M while it was; under the same lock
  void* wait_info;      // siginfo_t* where its wait finds what it received; its own
  void* wishes;  // atomic; posix/: what other threads want for its kernel thread; null: nothing
  int policy;    // as set, for pthread_getattr_np
  int priority;
  char name[16];      // as PR_SET_NAME; inherited
  uint64_t cpu_ns;    // used so far, without the current slice; written at switch
  uint64_t ran_from;  // atomic; CPU clock of the M when the current slice began; 0: not yet known
};

// A list of Gs that nobody else holds, linked by `next`.
struct GQueue {
  G* head = nullptr;
  G* tail = nullptr;
  uint32_t size = 0;

  void Push(G* g) {
    g->next = nullptr;
    (tail != nullptr ? tail->next : head) = g;
    tail = g;
    ++size;
  }
  void Append(GQueue* q) {
    if (q->head == nullptr) return;
    (tail != nullptr ? tail->next : head) = q->head;
    tail = q->tail;
    size += q->size;
    *q = {};
  }
  G* Pop() {
    G* g = head;
    if (g == nullptr) return nullptr;
    head = g->next;
    if (head == nullptr) tail = nullptr;
    --size;
    return g;
  }
};

// active_page[0]: 1 from the first pthread_create on. The page is the word's own, and the kernel
// clears it in every forked child (sched/fork.cc).
extern constinit uint32_t active_page[kOsPageSize / sizeof(uint32_t)];
inline bool Active() { return LoadAcquire(&active_page[0]) != 0; }  // pairs: StartScheduler

// Makes the caller the one who ends the wait of g, if nobody has ended it: then g is the caller's
// to make runnable.
inline bool ClaimWake(G* g, Wake why) {
  auto armed = static_cast<uint32_t>(Wake::kArmed);
  return CasAcqRel(&g->wake, &armed, static_cast<uint32_t>(why));  // pairs: Waiter::Wait
}

// The running thread's G if it may be switched away from: null for threads that have none, for
// pinned ones, on g0, and in a slow path of the heap or of the scheduler.
inline G* Current() {
  return UNDERGO_LIKELY(heap::thread_words.busy == 0 && Active())
             ? static_cast<G*>(heap::thread_words.g)
             : nullptr;
}
// The G behind the running thread block in any state; null when it is a plain thread.
inline G* Self() { return Active() ? static_cast<G*>(heap::thread_words.self) : nullptr; }

}  // namespace undergo::sched
