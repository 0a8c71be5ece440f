// SPDX-License-Identifier: Apache-2.0
// Signals that wait: for a thread with a G, or for any thread that takes them.
//
// A G's queue holds what was sent to it while it could not run, or blocks; G::pending has a bit for
// each signal in it. Standard signals are in it once, real-time ones in their order. The held list
// has what came to a kernel thread in the middle of the scheduler. Nodes come from a pool of fixed
// size that a handler may use at any time; it is a root of the collector, as values may be
// pointers.
#pragma once

#include <signal.h>

#include "sched/g.h"

namespace undergo::posix {

using sched::G;

constexpr uint64_t Bit(int sig) { return uint64_t{1} << (sig - 1); }
constexpr int kSignalCount = 65;
constexpr int kFirstRealTime = 32;

// Handlers of the program are held back, and nobody preempts. What came meanwhile runs when
// sched::RunDeferred is called after it.
class HandlersOff {
 public:
  HandlersOff();
  ~HandlersOff();
  HandlersOff(const HandlersOff&) = delete;
  HandlersOff& operator=(const HandlersOff&) = delete;
};

// Around accesses to queues. Nothing inside of it may make a thread runnable: that can switch, and
// the lock would be held by one that waits for a P.
class SignalSection : HandlersOff {
 public:
  SignalSection();
  ~SignalSection();
};

constexpr int kAnybody = 0;  // may take it
constexpr int kQueued = -1;  // the G in its value has it in its queue and must be made to look

struct SignalNode {
  SignalNode* next;
  int sig;
  int owner;  // held: the kernel thread without a G that it came to, kAnybody, kQueued
  bool any;   // in a queue: anybody could have taken it
  siginfo_t info;
};

// In a handler, at any time. Without a node left the signal becomes one without siginfo.
void Hold(int sig, const siginfo_t& info, int owner);
// All that are held, oldest first; each must go to FreeNode or Enqueue. In a SignalSection.
SignalNode* TakeHeld();
void FreeNode(SignalNode* node);

// The rest in a SignalSection, which has the lock.

// Adds a signal to the queue of g; `any`: another thread may have it when g ends. False: no room
// for another real-time signal.
bool Enqueue(G* g, int sig, const siginfo_t& info, bool any);
// Takes the oldest one of the lowest signal in `set` out of it; 0: there is none.
int Dequeue(G* g, uint64_t set, siginfo_t* info);
// Empties the queue of a thread that ends; each node must go to FreeNode.
SignalNode* TakeQueue(G* g);

// In a forked child: signals that waited are its parent's, whose threads may have held the lock.
void ForgetQueues(G* g);

// What the kernel holds for the running kernel thread alone, since its thread blocks it, goes to
// the queue of g: other threads will run here. Not in a SignalSection.
void TakePendingOfThread(G* g);

}  // namespace undergo::posix
