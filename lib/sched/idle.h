// SPDX-License-Identifier: Apache-2.0
// Ms and Ps without work, and how they get some. For schedule.cc and guest.cc; what others use is
// in sched.h.
#pragma once

#include "heap/thread_words.h"
#include "sched/masks.h"
#include "sched/sched.h"
#include "world/world.h"

namespace undergo::sched {

// The M has the P from here on. On the M, or before it runs.
inline void HoldP(M* m, P* p, PState state) {
  p->m = m;
  m->p = p;
  StoreRelease(&p->status, PStatus(m->id, state));  // pairs: EnterSched, Retake
}
// Its P goes to the idle list and true is returned, unless the global queue has work.
bool GiveUpP(M* m, P* p);

// On g0: around a sleep in the kernel. The M counts as stopped and takes no lock of ours.
template <typename F>
void SleepOnG0(M* m, F wait) {
  SetIdleMask(m);
  heap::EndBusy();
  if (UNDERGO_UNLIKELY(LoadRelaxed(&m->g0.words->deferred) != 0)) on_sched_end(&m->g0);
  bool published = m->record != nullptr;
  if (published) world::EnterBlocked();
  wait();
  if (published) world::LeaveBlocked();
  heap::thread_words.busy++;
  CompilerFence();
}

// On g0, without a P: sleeps until somebody gives the M a P, ends it or sends a guest.
void StopM(M* m);
// For an M that would wait for descriptors and deadlines: when a sole thread is left, the first M
// does it instead, and this one ends. False: it is not so, or that one is busy itself.
bool LeaveToFirst(const M* m);
// With sched.lock held: wakes `to`, which has a guest, if it sleeps.
void StartForGuestLocked(M* to);

// On g0: the G that has to run on this very M, with the P that it brought (sched/guest.cc); null
// when there is none.
G* TakeGuest(M* m);

}  // namespace undergo::sched
