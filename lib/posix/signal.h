// SPDX-License-Identifier: Apache-2.0
// Parts of signal handling that its files share. How it works stands in signal.cc.
#pragma once

#include "posix/signal_queue.h"

namespace undergo::posix {

// A signal's disposition as the kernel has it.
struct SignalAction {
  Addr handler;
  uint64_t flags;
  Addr restorer;
  uint64_t mask;
};
SignalAction ActionOf(int sig);
// Whether the kernel calls our trampoline for it.
bool IsWrapped(const SignalAction& action);
// Whether the kernel would throw it away.
bool IsIgnored(const SignalAction& action, int sig);

// Siginfo of a signal that the process sends to one of its threads.
siginfo_t SelfInfo(int sig, int code);
// To a kernel thread of this process; an error number.
int SendReal(int tid, int sig, const siginfo_t& info);
// To any thread of this process.
int SendToProcess(int sig, const siginfo_t& info);

// What these two sent has its code back.
void Undisguise(siginfo_t* info);

// Whether the thread block is that of the G's own kernel thread, not borrowed by a child.
bool IsOnOwnM(const G* g);

// To a thread with a G: queued, and the thread is made to look. An error number.
int SendTo(G* g, int sig, const siginfo_t& info);
// What the process sends to itself, by a thread with the G `self` or by a plain one. False: no
// thread with a G takes it now; it is the kernel's.
bool SendToAny(G* self, int sig, const siginfo_t& info);
// Whether a signal that came to the running kernel thread only says "look into your queue"; then
// the queue's siginfo takes its place. False: it was meant for a thread that has left this one.
bool IsPoke(const siginfo_t* info);
bool TakePoked(G* g, int sig, siginfo_t* info);
// Body of sched::on_call_end: g no longer waits for signals. It runs, or ends a call, on its M.
void EndSignalWait(G* g);
// Makes the kernel deliver, at the end of the running handler, what its mask held back.
void PokeAfterHandler(G* g, uint64_t mask);

// Body of sched::take_signals.
void TakeProcessSignals();

// g ends. What others may have is in their queues before anybody can know that it has ended; that
// they look is seen to at the end of the section in the scheduler. In a SignalSection.
void PassOn(G* g);

// The mask of a thread has changed, or it ended: idle Ms learn what all threads block now, as far
// as they would do harm.
void CheckIdleMs();

// The program is about to have an alternate stack: ours are not given out any more.
void LeaveAltStacksToProgram();

// Body of sched::on_sched_end.
void OnSchedEnd(G* g);
// Body of sched::on_forked: locks of this layer that a thread of the parent may have had.
void OnForked(G* g);

// Handlers of the kernel's SIGCANCEL, behind ours; called before the first cancellation.
void CheckCancel(G* g);

}  // namespace undergo::posix
