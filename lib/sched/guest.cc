// SPDX-License-Identifier: Apache-2.0
// A G that has to run on one particular M: its guest. It brings its P along.
#include "sched/idle.h"
#include "sched/netpoll.h"
#include "sched/preempt.h"

namespace undergo::sched {

namespace {

// What the mover has to do itself, with the P that it leaves to the M.
bool HandTo(M* to, G* g, P* p) {
  sync::MutexLock hold(sched.lock);
  if (to->dirty || to->ending || to->guest != nullptr || LoadAcquire(&to->tid) <= 0) return false;
  g->m->p = nullptr;
  g->state = GState::kRunnable;
  to->guest_p = p;
  StoreRelease(&to->guest, g);  // pairs: TakeGuest
  StartForGuestLocked(to);
  return true;
}

}  // namespace

G* TakeGuest(M* m) {
  G* g;
  P* p;
  {
    sync::MutexLock hold(sched.lock);
    g = m->guest;
    p = m->guest_p;
    m->guest = nullptr;
  }
  if (g == nullptr) return nullptr;
  if (m->p == nullptr) {
    HoldP(m, p, kPSched);
  } else {
    HandOffP(p);
  }
  return g;
}

bool MoveTo(M* to) {
  G* g = Current();
  if (g == nullptr) return false;
  if (g->m == to) return true;
  P* p = EnterSched(g);
  if (p == nullptr) p = TakeIdleP();
  if (p == nullptr) {
    LeaveSched(g);
    return g->m == to;
  }
  HoldP(g->m, p, kPSched);
  if (HandTo(to, g, p)) {
    NetpollBreak();  // it may be there
    Preempt(to);
    Schedule(g);
  }
  LeaveSched(g);
  return g->m == to;
}

GQueue DropGuest(M* m) {
  GQueue gone;
  P* p = nullptr;
  {
    sync::MutexLock hold(sched.lock);
    m->dirty = true;
    if (m->guest == nullptr) return gone;
    gone.Push(m->guest);
    p = m->guest_p;
    m->guest = nullptr;
  }
  HandOffP(p);
  return gone;
}

}  // namespace undergo::sched
