// SPDX-License-Identifier: Apache-2.0
// Blocking calls.
//
// The way in is one compare-and-swap on the P's status, the way out another one. While the status
// is kPSyscall, sysmon may take the P (Retake, sched/sysmon.cc) and give it to another M. Who comes
// back and finds it gone takes an idle one or waits in the global queue for one.
// Source: Go's entersyscall and exitsyscall.
#include "sched/handoff.h"

#include "base/assert.h"
#include "sched/preempt.h"
#include "sched/sched.h"

namespace undergo::sched {

namespace {

// The P stays with the M as far as nobody takes it.
bool TrySetStatus(M* m, PState from, PState to) {
  uint32_t status = PStatus(m->id, from);
  return CasAcqRel(&m->p->status, &status, PStatus(m->id, to));  // pairs: Retake
}

// A handler of the program between the two halves of such a change would find a P that is neither
// with the M nor away: it waits.
void HoldHandlers(heap::ThreadWords* w) {
  w->busy++;
  w->in_sched++;
  CompilerFence();
}

}  // namespace

G* EnterCall() {
  G* g = Current();
  if (g == nullptr) return nullptr;
  HoldHandlers(g->words);
  M* m = g->m;
  if (m->p == nullptr || !TrySetStatus(m, kPRunning, kPSyscall)) {
    // Without a P already; at the call's end it takes one.
    m->p = nullptr;
    StoreRelaxed(&m->lost, 0u);
  } else {
    StoreRelaxed(&m->p->call_tick, m->p->call_tick + 1);
  }
  g->state = GState::kSyscall;
  g->words->g = nullptr;  // nobody waits or schedules inside of the call
  CompilerFence();
  g->words->in_sched--;
  heap::EndBusy();
  if (UNDERGO_UNLIKELY(m->p == nullptr || MayCome(LoadRelaxed(&m->preempting)))) {
    AwaitPreemption(m);
  }
  RunDeferred();
  return g;
}

G* EnterLongCall() {
  G* g = EnterCall();
  if (g == nullptr) return nullptr;
  M* m = g->m;
  P* p = m->p;
  bool idle = LoadRelaxed(&sched.global.size) == 0 && p != nullptr && RunqEmpty(p);
  if (p == nullptr || idle) return g;
  if (!TrySetStatus(m, kPSyscall, kPSched)) {
    m->p = nullptr;
    return g;
  }
  m->p = nullptr;
  {
    heap::BusyScope busy;
    g->words->in_sched++;
    HandOffP(p);
    g->words->in_sched--;
  }
  RunDeferred();
  return g;
}

void ExitCall(G* g) {
  // A handler in the call may have forked: in the child there is nothing to come back to.
  if (g == nullptr || g->state != GState::kSyscall || !Active()) return;
  HoldHandlers(g->words);
  if (UNDERGO_UNLIKELY(LoadRelaxed(&g->waits_for) != 0)) on_call_end(g);
  g->words->g = g;
  M* m = g->m;
  g->state = GState::kRunning;
  // As if sysmon had taken it from a running G.
  if (m->p == nullptr || !TrySetStatus(m, kPSyscall, kPSched)) m->p = nullptr;
  LeaveSched(g);
}

G* LeaveCallEarly() {
  G* g = Self();
  if (g == nullptr || g->g0 || g->held || g->state != GState::kSyscall) return nullptr;
  ExitCall(g);
  return g;
}

void ReturnToCall(G* g) {
  if (g == nullptr) return;
  EnterCall();
}

G* EnterHeldCall() {
  G* g = EnterLongCall();
  if (g != nullptr) g->held = true;
  return g;
}

void ExitHeldCall(G* g) {
  if (g == nullptr) return;
  g->held = false;
  ExitCall(g);
}

SharedWait::SharedWait() { FetchAddRelaxed(&sched.shared_waits, 1u); }
SharedWait::~SharedWait() { FetchAddRelaxed(&sched.shared_waits, ~0u); }

void Pin() {
  G* g = Current();
  if (g == nullptr) return;
  P* p = EnterSched(g);
  M* m = g->m;
  m->p = nullptr;
  g->state = GState::kPinned;
  GQueue guest = DropGuest(m);
  if (guest.head != nullptr) MakeRunnableGlobally(&guest);
  g->words->g = nullptr;
  if (p != nullptr) HandOffP(p);
  CompilerFence();
  g->words->in_sched--;
  heap::EndBusy();
  RunDeferred();
}

void PinAsParent() {
  G* g = Current();
  if (g == nullptr) return;
  // The M may run another G, which gives way soon, or belong to one: then this is as good.
  if (g->forked_on != nullptr) MoveTo(g->forked_on);
  Pin();
}

bool IsPinned() {
  G* g = Self();
  return g == nullptr || g->state == GState::kPinned;
}

}  // namespace undergo::sched

// Unwinders call it for the frame of undergo_sched_call. 8: continue.
extern "C" __attribute__((visibility("hidden"))) int undergo_sched_personality(int, int actions,
                                                                               uint64_t, void*,
                                                                               void*) {
  constexpr int kCleanupPhase = 2;
  if ((actions & kCleanupPhase) != 0) undergo::sched::LeaveCallEarly();
  return 8;
}
