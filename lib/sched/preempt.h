// SPDX-License-Identifier: Apache-2.0
// Taking the CPU from a G that does not give it up.
#pragma once

#include "sched/sched.h"

namespace undergo::sched {

// Of M::preempting.
enum Preempting : uint32_t {
  kNotAsked,  // or it was answered by giving way
  kAsking,    // the signal may come: sysmon is about to send it
  kAsked,     // the signal is under way
  kMissed,    // it came at an instruction where the G cannot be switched away from: ask again soon
};
inline bool MayCome(uint32_t preempting) { return preempting == kAsking || preempting == kAsked; }

// GODEBUG=asyncpreemptoff=1 makes it false: then a G that computes keeps its M, and its P goes to
// another one. Written before the scheduler starts.
extern constinit bool preempt_by_signal;
// UNDERGO=stress=preempt: whoever runs has to give way about every 100 us, whether or not others
// wait. The same.
extern constinit bool preempt_always;

// Once, when the scheduler starts.
void PreparePreemption();
// Whether an instruction is the library's own, where a thread may have what belongs to its M in
// registers. False before the scheduler starts.
bool InOwnText(Addr ip);
// Asks the M to let others run. Any thread. False when it cannot be asked.
bool Preempt(M* m);
// A blocking call is about to begin on the running M: the signal that is under way comes first.
void AwaitPreemption(M* m);

}  // namespace undergo::sched
