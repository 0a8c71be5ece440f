// SPDX-License-Identifier: Apache-2.0
// Ms and Ps without work: two lists under one lock. Which M is woken for which P, and when: the
// rules are told in sched/schedule.cc.
#include "sched/idle.h"

#include "plat/futex.h"
#include "sched/netpoll.h"

namespace undergo::sched {

namespace {

// An M and the P for it, both taken out of their lists.
void StartM(M* m, P* p, bool spinning) {
  m->spinning = spinning;
  m->next_p = p;
  StoreRelease(&m->wake, 1u);  // pairs: StopM
  plat::FutexWake(&m->wake, 1);
}

// `at` is the link to it.
void UnlinkIdleMLocked(M* m, M** at) {
  *at = m->next_idle;
  StoreRelaxed(&sched.idle_m_count, sched.idle_m_count - 1);
}

M* PopIdleMLocked() {
  M* m = sched.idle_ms;
  if (m != nullptr) UnlinkIdleMLocked(m, &sched.idle_ms);
  return m;
}

P* PopIdlePLocked() {
  P* p = sched.idle_ps;
  if (p == nullptr) return nullptr;
  sched.idle_ps = p->next_idle;
  __atomic_store_n(&sched.idle_p_count, sched.idle_p_count - 1, __ATOMIC_SEQ_CST);  // pairs: Sleep
  if (UNDERGO_UNLIKELY(LoadRelaxed(&sched.sysmon_deep) != 0)) WakeSysmon();
  return p;
}

void PutIdlePLocked(P* p) {
  p->m = nullptr;
  StoreRelease(&p->status, PStatus(0, kPIdle));  // pairs: TakeIdleP
  p->next_idle = sched.idle_ps;
  sched.idle_ps = p;
  StoreRelaxed(&sched.idle_p_count, sched.idle_p_count + 1);
}

void WantM() {
  StoreRelease(&sched.wanted_ms, 1u);  // pairs: sysmon
  WakeSysmon();
}

}  // namespace

bool GiveUpP(M* m, P* p) {
  sync::MutexLock hold(sched.lock);
  if (sched.global.size != 0) return false;
  m->p = nullptr;
  PutIdlePLocked(p);
  return true;
}

void StopM(M* m) {
  {
    sync::MutexLock hold(sched.lock);
    if (m->guest != nullptr) return;
    m->next_idle = sched.idle_ms;
    sched.idle_ms = m;
    StoreRelaxed(&sched.idle_m_count, sched.idle_m_count + 1);
  }
  SleepOnG0(m, [m] {
    while (LoadAcquire(&m->wake) == 0) plat::FutexWait(&m->wake, 0);  // pairs: StartM
  });
  StoreRelaxed(&m->wake, 0u);
  P* p = m->next_p;
  m->next_p = nullptr;
  if (p != nullptr) HoldP(m, p, kPSched);
}

void EndIdleMs(uint32_t keep) {
  for (;;) {
    M* m;
    {
      sync::MutexLock hold(sched.lock);
      if (sched.idle_m_count <= keep) return;
      M** at = &sched.idle_ms;
      while (*at != nullptr && (*at == &first_m || (*at)->forked)) at = &(*at)->next_idle;
      m = *at;
      if (m == nullptr) return;
      UnlinkIdleMLocked(m, at);
      m->ending = true;
    }
    StartM(m, nullptr, false);
  }
}

bool LeaveToFirst(const M* m) {
  if (UNDERGO_LIKELY(LoadRelaxed(&sched.only_first) == 0)) return false;
  if (m == &first_m || m->forked) return false;
  P* p;
  {
    sync::MutexLock hold(sched.lock);
    M** at = &sched.idle_ms;
    while (*at != nullptr && *at != &first_m) at = &(*at)->next_idle;
    if (*at == nullptr || LoadRelaxed(&sched.gcount) != 1) return false;
    p = PopIdlePLocked();
    if (p == nullptr) return false;
    UnlinkIdleMLocked(&first_m, at);
  }
  StartM(&first_m, p, false);
  return true;
}

void StartForGuestLocked(M* to) {
  for (M** at = &sched.idle_ms; *at != nullptr; at = &(*at)->next_idle) {
    if (*at != to) continue;
    UnlinkIdleMLocked(to, at);
    StoreRelease(&to->wake, 1u);  // pairs: StopM
    plat::FutexWake(&to->wake, 1);
    return;
  }
}

P* TakeIdleP() {
  sync::MutexLock hold(sched.lock);
  return PopIdlePLocked();
}

bool TakeThisIdleP(P* p) {
  sync::MutexLock hold(sched.lock);
  for (P** at = &sched.idle_ps; *at != nullptr; at = &(*at)->next_idle) {
    if (*at != p) continue;
    *at = p->next_idle;
    StoreRelaxed(&sched.idle_p_count, sched.idle_p_count - 1);
    return true;
  }
  return false;
}

void PutIdleP(P* p) {
  sync::MutexLock hold(sched.lock);
  PutIdlePLocked(p);
}

void WakeP(bool handed) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: FindRunnable, StopWatching
  if (LoadRelaxed(&sched.idle_p_count) == 0 || LoadRelaxed(&sched.spinning) != 0) return;
  if (handed && LoadRelaxed(&sched.watched) != 0) return;
  uint32_t none = 0;
  if (!CasAcqRel(&sched.spinning, &none, 1u)) return;  // pairs: FindRunnable
  M* m = nullptr;
  P* p;
  {
    sync::MutexLock hold(sched.lock);
    p = PopIdlePLocked();
    if (p != nullptr && (m = PopIdleMLocked()) == nullptr) PutIdlePLocked(p);
  }
  if (m != nullptr) return StartM(m, p, true);
  __atomic_fetch_sub(&sched.spinning, 1u, __ATOMIC_SEQ_CST);  // pairs: FindRunnable
  if (p == nullptr) return;
  // All Ms are busy or in the kernel. One of them may be in the poller.
  if (LoadAcquire(&sched.last_poll) == 0) {  // pairs: PollUntilNearest
    NetpollBreak();
  } else {
    WantM();
  }
}

void HandOffP(P* p) {
  M* m = nullptr;
  bool work;
  {
    sync::MutexLock hold(sched.lock);
    bool unwatched =
        LoadRelaxed(&sched.last_poll) != 0 && (p->timers.Nearest() != 0 || NetpollActive());
    work = unwatched || !RunqEmpty(p) || sched.global.size != 0;
    if (!work || (m = PopIdleMLocked()) == nullptr) PutIdlePLocked(p);
  }
  if (m != nullptr) return StartM(m, p, false);
  if (work) return WantM();
  WakeP();
}

}  // namespace undergo::sched
