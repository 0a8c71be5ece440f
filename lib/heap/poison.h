// SPDX-License-Identifier: Apache-2.0
// UNDERGO=gc=poison: what the collector finds dead is made unusable and watched, not reclaimed.
//
// Pages on which everything is dead lose their access rights: a touch ends in ClaimFault, which
// gives the rights back, so the program goes on with what it had. Other dead bytes are overwritten;
// the next sweep sees whether they changed. An object that was used although nothing pointed to it
// is reported and pinned.
#pragma once

#include "heap/arena.h"

namespace undergo::heap {

// Called once, while there is one thread. Without memory for the page table nothing is protected.
void StartPoison();
// In a forked child: pages that a thread of the parent was about to give back can be used.
void RepairPoisonInChild();

// The sweep of a small span in this mode; the caller has claimed the span.
void PoisonSpan(Span* s);
// A large object is found dead, or was dead and is not any more.
void PoisonLarge(Span* s);
void UnpoisonLarge(Span* s);
// A large object that was dead is still so: whether its bytes are as they were left.
bool LargeIsIntact(Span* s);

// Dead slots of word w that the program freed after all are handed out again.
void PoisonTaken(Span* s, uint32_t w, uint64_t bits);
// The span holds no object any more, or none that is to be watched.
void UnpoisonSpan(Span* s);
// The program is about to change the protection of the range itself.
void UnpoisonRange(Addr from, Addr to);

// Some page of the range has no access rights, or had none a moment ago.
bool RangeIsGuarded(Addr from, Addr to);

// A thread was stopped by a fault at this address; `by` is its call chain. True: it was a touch of
// a dead object and may be repeated now. Safe in signal handlers.
bool ClaimFault(Addr a, const Addr* by, uint32_t frames);

}  // namespace undergo::heap
