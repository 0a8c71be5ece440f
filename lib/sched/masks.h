// SPDX-License-Identifier: Apache-2.0
// Signal masks and alternate signal stacks: they belong to Gs, the kernel knows those of Ms.
//
// The kernel's mask and alternate stack of an M are those of the G that it runs, changed at a
// switch when the next G has others. An idle M has to take signals for parked Gs: it blocks what
// every thread blocks, and nothing else. For that, threads are counted by the signals that they
// block.
#pragma once

#include "sched/m.h"

namespace undergo::sched {

// glibc's own, which no program can block: cancellation, and ours (world/signal.cc).
inline constexpr uint64_t kReservedSignals = uint64_t{3} << 31;

// A thread with this mask begins; ends.
void MaskBorn(uint64_t mask);
void MaskGone(uint64_t mask);
// In a forked child, before its first thread.
void MasksAfterFork();
// The G, which is the running one, blocks other signals from now on. On its M, which may not change
// meanwhile: in the scheduler, or with everything blocked.
void SetMaskOf(G* g, uint64_t mask);
// What every thread blocks. A snapshot.
uint64_t IdleMask();

// Gives the kernel the mask for this M if it has another one.
void SetKernelMask(M* m, uint64_t mask);
// What an idle M blocks.
void SetIdleMask(M* m);

// All threads block these signals from now on: Ms that run none, or one that is at its end, block
// them before this returns, for the kernel would take their default action at once.
void TellIdleMs(uint64_t signals);
// In the handler of signal 33 on such an M: what TellIdleMs wants.
inline bool HearsWhatIdleMsHear(const G* cur) { return cur->g0 || cur->state == GState::kDead; }
void HearOnIdleM(M* m, uint64_t* mask);

// For the switch: `prev` has just been left on m, libc may have changed its mask.
void AskForMask(M* m, G* prev);
// The alternate stack of g for the kernel, which knows another one.
void AdoptAltStack(M* m, G* g);
// `from` is about to be left: no signal comes onto its alternate stack while it is in use.
void LeaveAltStack(M* m, G* from);
// What the main thread had before it became a G.
void AltStackOfMain(M* m, G* g);

}  // namespace undergo::sched
