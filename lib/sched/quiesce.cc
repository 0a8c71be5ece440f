// SPDX-License-Identifier: Apache-2.0
// Ends of Ms and of sysmon.
//
// Ms are made for Gs that block them, so there may be many; after five seconds in which more of
// them were idle than there are Ps, those end. When for five seconds only one thread lived, all
// idle Ms and sysmon itself end, and the process has one kernel thread again. Some calls of the
// kernel insist on that, and must not wait: Quiesce does it at once. Who makes a thread looks
// whether sysmon is there.
//
// A fork copies the mappings and written pages of each kernel thread, ten microseconds for each, so
// hundreds of idle Ms end before it, as natively the threads would have that they were made for.
//
// Never ended: the first M, because the kernel shows the process by it, and those that have forked
// (m.h).
#include "sched/quiesce.h"

#include "plat/clock.h"
#include "plat/thread.h"
#include "sched/confine.h"
#include "sched/netpoll.h"
#include "sched/sched.h"

namespace undergo::sched {

namespace {

constexpr uint64_t kIdleTime = 5'000'000'000;  // ns
constexpr uint64_t kPatience = 200'000'000;    // ns for the next M to end; CPUs may be busy
constexpr uint32_t kManyIdle = 256;            // at a fork
constexpr uint64_t kStepTime = 20'000'000;     // ns in which some of them end

// Of sysmon alone.
constinit uint64_t window_from = 0;  // begin of the running five seconds
constinit uint32_t least_idle = 0;   // Ms that were idle all the time since
constinit bool alone = false;        // one thread lived all the time since

bool OneThread() { return LoadAcquire(&sched.gcount) == 1; }  // pairs: CreateThread

// sysmon's last word: nobody makes a thread without noticing that it is gone.
bool LeaveSysmon() {
  if (!start_lock.TryLock()) return false;
  __atomic_store_n(&sched.sysmon_runs, 0, __ATOMIC_SEQ_CST);  // pairs: CreateThread
  bool leave = OneThread();
  if (!leave) StoreRelease(&sched.sysmon_runs, 1u);  // pairs: EnsureSysmon
  start_lock.Unlock();
  return leave;
}

void EndSysmon() {
  {
    sync::MutexLock hold(start_lock);
    if (sched.sysmon_runs == 0) return;
    StoreRelease(&sched.sysmon_quit, 1u);  // pairs: Retire
    StoreRelease(&sched.sysmon_runs, 0u);  // pairs: EnsureSysmon
  }
  WakeSysmon();
}

// Kernel threads beside the caller, who is first_m's. An M counts from before it is made, when it
// is in no list yet, until its thread is gone.
size_t OtherThreads(int sysmon) {
  size_t n = LoadAcquire(&sched.m_count) - 1;                               // pairs: EndM
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next) {  // pairs: LinkM
    if (LoadAcquire(&m->tid) == 0 && !plat::IsGone(m->last_tid)) n++;       // pairs: EndM
  }
  return n + (plat::IsGone(sysmon) ? 0 : 1);
}

}  // namespace

bool MayRetire() {
  uint32_t idle = LoadRelaxed(&sched.idle_m_count);
  return OneThread() || idle > sched.procs;
}

void BeginRetiring() { window_from = 0; }

bool Retire(uint64_t now) {
  if (UNDERGO_UNLIKELY(LoadAcquire(&sched.sysmon_quit) != 0)) return true;  // pairs: EndSysmon
  uint32_t idle = LoadRelaxed(&sched.idle_m_count);
  least_idle = Min(least_idle, idle);
  alone &= OneThread();
  if (now - window_from < kIdleTime) return false;
  bool leave = alone && window_from != 0;
  if (leave) {
    EndIdleMs(0);
    StoreRelaxed(&sched.only_first, 1u);
    NetpollBreak();  // another M may wait there
  } else if (least_idle > sched.procs && window_from != 0) {
    EndIdleMs(idle - (least_idle - sched.procs));
  }
  window_from = now;
  least_idle = LoadRelaxed(&sched.idle_m_count);
  alone = OneThread();
  return leave && LeaveSysmon();
}

void EndManyIdleMs() {
  G* g = Current();
  if (LoadRelaxed(&sched.idle_m_count) < kManyIdle || g == nullptr || IsConfined()) return;
  {
    heap::BusyScope busy;
    g->words->in_sched++;
    EndIdleMs(sched.procs);
    g->words->in_sched--;
  }
  RunDeferred();
  // Those whose Gs block stay, so when the count stands still that was all.
  uint32_t least = LoadRelaxed(&sched.m_count);
  uint64_t deadline = plat::NowNs() + kStepTime;
  while (least > kManyIdle && plat::NowNs() < deadline) {
    plat::NapNs(1'000'000);
    uint32_t count = LoadRelaxed(&sched.m_count);
    if (count >= least) continue;
    least = count;
    deadline = plat::NowNs() + kStepTime;
  }
}

bool Quiesce() {
  G* g = Current();
  if (g == nullptr || !OneThread()) return false;
  uint64_t deadline = plat::NowNs() + kPatience;
  int sysmon = LoadRelaxed(&sched.sysmon_runs) != 0 ? sched.sysmon_tid : 0;
  while (!MoveTo(&first_m)) {
    if (plat::NowNs() > deadline) return false;
    NetpollBreak();  // it may wait there
    plat::Syscall(__NR_sched_yield);
  }
  EndSysmon();
  size_t least = SIZE_MAX;
  for (;;) {
    EndIdleMs(0);
    size_t left = OtherThreads(sysmon);
    if (left == 0) return true;
    if (left < least) deadline = plat::NowNs() + kPatience;
    least = Min(least, left);
    if (plat::NowNs() > deadline) break;
    NetpollBreak();
    plat::NapNs(50'000);
  }
  EnsureSysmon();
  return false;
}

}  // namespace undergo::sched
