// SPDX-License-Identifier: Apache-2.0
// sysmon: a thread without a P that looks at all Ps every 20 us to 10 ms.
//
//  * A P whose M has been in a blocking call for a whole look is taken away, at once if there is
//    work for it, after 10 ms anyway.
//  * A P whose M runs the same G for long, while others wait: if the M's CPU clock has moved, the G
//    computes and is preempted after 10 ms. If the kernel says that it sleeps, it waits there
//    without our knowing (stdio, the resolver, an inline futex): its P is taken, and it finds out
//    when it comes back. A signal would end its system call early.
//  * Ms are made here, because it may take libc's locks (sched/start.cc).
//  * Descriptors that nobody has looked at for 10 ms, deadlines that nobody has noticed.
//  * Stacks of Gs that wait for long (sched/trim.h).
//  * Signals of the process, when all Ms run threads that block them and a parked one does not.
//  * What others have to do by the clock (clock_hook).
//
// It sleeps for 20 us, after 50 looks without a find twice as long each time, up to 10 ms. When all
// Ps have been idle for a second or longer, and nothing is left to do (an M waits in the poller, if
// need be), it sleeps until one is taken, or for a minute.
// Source: Go's sysmon and retake in runtime/proc.go.
#include "sched/sysmon.h"

#include <fcntl.h>
#include <time.h>

#include "base/fmt.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "sched/confine.h"
#include "sched/cpu_time.h"
#include "sched/netpoll.h"
#include "sched/preempt.h"
#include "sched/procs.h"
#include "sched/quiesce.h"
#include "sched/trace.h"
#include "sched/trim.h"
#include "world/blocked_call.h"
#include "world/world.h"

namespace undergo::sched {

constinit ClockHook clock_hook = nullptr;
constinit AllIdleHook on_all_idle = nullptr;
constinit SignalHook take_signals = nullptr;

namespace {

constexpr uint64_t kSlice = 10'000'000;        // ns
constexpr uint64_t kBlockedAfter = 1'000'000;  // ns without CPU time
constexpr uint64_t kShortest = 20'000, kLongest = 10'000'000;
constexpr uint64_t kStressPause = 100'000;  // under UNDERGO=stress=preempt
constexpr uint32_t kQuietLooks = 50;
constexpr uint32_t kIdleLooks = 100;  // of kLongest
constexpr uint64_t kDeepNs = 60'000'000'000;

// Of sched.sysmon_wake.
enum Wake : uint32_t { kAwake, kAsleep, kCalled };

bool SleepsInKernel(int tid) {
  char text[64];
  Fmt path(text, sizeof text);
  path.Str("/proc/self/task/").Dec(static_cast<uint64_t>(tid)).Str("/stat");
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, path.text(), O_RDONLY | O_CLOEXEC, 0);
  if (plat::IsError(fd)) return true;
  long n = plat::Syscall(__NR_read, fd, &text[0], sizeof text - 1);
  plat::Syscall(__NR_close, fd);
  // "tid (name) S": names have 15 characters at the most, and may hold anything.
  for (long at = n - 2; at > 0; --at) {
    if (text[at] == ')') return text[at + 2] == 'S' || text[at + 2] == 'D';
  }
  return true;
}

bool WorkWaits(const P* p) { return !RunqEmpty(p) || LoadRelaxed(&sched.global.size) != 0; }

bool Take(P* p, uint32_t status) {
  if (!CasAcqRel(&p->status, &status, PStatus(0, kPSched))) return false;  // pairs: EnterSched
  HandOffP(p);
  return true;
}

// The M finds out when it enters the scheduler; until then it runs without a P.
bool TakeFromRunning(P* p, M* m, uint32_t status, uint64_t now) {
  StoreRelaxed(&m->lost, 1u);
  sched.any_lost = true;
  m->lost_at = now;
  m->lost_cpu = IsConfined() ? 0 : ThreadCpuClock(m->tid);
  if (Take(p, status)) return true;
  StoreRelaxed(&m->lost, 0u);
  return false;
}

// Whether it did something.
bool LookAtCall(P* p, uint32_t status, uint64_t now) {
  if (p->seen_call_tick != LoadRelaxed(&p->call_tick)) {
    p->seen_call_tick = LoadRelaxed(&p->call_tick);
    p->seen_since = now;
    return false;
  }
  bool others = LoadRelaxed(&sched.spinning) + LoadRelaxed(&sched.idle_p_count) != 0;
  if (!WorkWaits(p) && others && now - p->seen_since < kSlice) return false;
  return Take(p, status);
}

// The G has had its slice.
bool GiveWay(P* p, M* m, uint32_t status, uint64_t now) {
  constexpr uint32_t kManyMisses = 8;
  if (LoadRelaxed(&m->preempting) == kMissed) {
    if (++m->misses >= kManyMisses) {
      m->misses = 0;
      p->seen_since = now;
      return TakeFromRunning(p, m, status, now);
    }
  } else {
    m->misses = 0;
    if (now - m->asked_at < kSlice) return false;
  }
  m->asked_at = now;
  return Preempt(m) || TakeFromRunning(p, m, status, now);
}

bool LookAtRunning(P* p, uint32_t status, uint64_t now) {
  M* m = p->m;
  if (m == nullptr) return false;
  uint32_t tick = LoadRelaxed(&p->tick);
  if (p->seen_tick != tick) {
    p->seen_tick = tick;
    p->seen_since = now;
    p->seen_at = 0;
    // That was the G before.
    if (LoadRelaxed(&m->preempting) == kMissed) StoreRelaxed(&m->preempting, uint32_t{kNotAsked});
    return false;
  }
  uint64_t ran = now - p->seen_since;
  if (ran < kBlockedAfter || !WorkWaits(p)) return false;
  // Nobody may be asked what it does.
  if (UNDERGO_UNLIKELY(IsConfined())) return ran >= kSlice && TakeFromRunning(p, m, status, now);
  uint64_t cpu = ThreadCpuClock(m->tid);
  if (p->seen_at == 0) {  // not the clock: a new thread may have no CPU time at all
    p->seen_cpu = cpu;
    p->seen_at = now;
    return false;
  }
  bool missed = LoadRelaxed(&m->preempting) == kMissed;
  if (now - p->seen_at < kBlockedAfter && !missed) return false;
  bool moved = cpu != p->seen_cpu;
  p->seen_cpu = cpu;
  p->seen_at = now;
  if (moved && ran < kSlice) return false;
  if (SleepsInKernel(m->tid)) return TakeFromRunning(p, m, status, now);
  // On a busy machine it may be at the end of a system call, without a CPU for its return.
  return moved && ran >= kSlice && GiveWay(p, m, status, now);
}

// An M whose P was taken while it seemed blocked, and that computes: one too many runs.
void LookAtLost(M* m, uint64_t now) {
  if (now - m->lost_at < kSlice || IsConfined()) return;
  uint64_t cpu = ThreadCpuClock(m->tid);
  bool moved = cpu != m->lost_cpu;
  m->lost_at = now;
  m->lost_cpu = cpu;
  if (moved && !SleepsInKernel(m->tid)) Preempt(m);
}

// For tests: all that run. One that waits in the kernel without our knowing is left alone.
void PreemptAll() {
  for (uint32_t i = 0; i < sched.procs; ++i) {
    P* p = sched.ps[i];
    if ((LoadAcquire(&p->status) & 3) != kPRunning) continue;  // pairs: LeaveSched
    M* m = p->m;
    if (m != nullptr && LoadRelaxed(&m->preempting) != kAsked && !SleepsInKernel(m->tid)) {
      Preempt(m);
    }
  }
}

// There may be thousands of Ms: they are looked at only while one of them is lost.
void LookAtLostMs(uint64_t now) {
  static constinit uint64_t looked = 0;  // ns
  if (!sched.any_lost || now - looked < kSlice / 2) return;
  looked = now;
  sched.any_lost = false;
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next) {  // pairs: LinkM
    if (LoadRelaxed(&m->lost) == 0) continue;
    sched.any_lost = true;
    LookAtLost(m, now);
  }
}

bool Retake(uint64_t now) {
  bool did = false;
  if (UNDERGO_UNLIKELY(preempt_always)) PreemptAll();
  for (uint32_t i = 0; i < sched.procs; ++i) {
    P* p = sched.ps[i];
    uint32_t status = LoadAcquire(&p->status);  // pairs: EnterCall, LeaveSched
    if ((status & 3) == kPSyscall) did |= LookAtCall(p, status, now);
    if ((status & 3) == kPRunning) did |= LookAtRunning(p, status, now);
  }
  LookAtLostMs(now);
  return did;
}

bool MakeMs() {
  if (MakeConfinedMs()) return true;
  if (!MayMakeThreads()) return false;
  if (ExchangeAcqRel(&sched.wanted_ms, 0u) == 0) return false;  // pairs: WantM
  if (!NewM()) StoreRelaxed(&sched.wanted_ms, 1u);              // again later
  return true;
}

void Overdue(uint64_t now) {
  NetpollFlush(false);
  if (LoadRelaxed(&sched.last_poll) == 0) return;  // somebody waits for all of it
  for (uint32_t i = 0; i < sched.ps_made; ++i) {
    uint64_t when = sched.ps[i]->timers.Nearest();
    if (when == 0 || when > now) continue;
    GQueue ready;
    sched.ps[i]->timers.Run(now, &ready);
    if (ready.head != nullptr) MakeRunnableGlobally(&ready);
  }
  uint64_t polled = LoadRelaxed(&sched.last_poll);
  if (!NetpollActive() || polled == 0 || now - polled < kSlice) return;
  GQueue ready;
  Netpoll(&ready);
  if (ready.head != nullptr) MakeRunnableGlobally(&ready);
}

void LookForSignals(uint64_t now) {
  static constinit uint64_t looked = 0;  // ns
  if (take_signals == nullptr || now - looked < kSlice / 2) return;
  looked = now;
  take_signals();
}

void Sleep(uint64_t ns, bool deep) {
  bool publish = world::publishing;
  uint32_t awake = kAwake;
  if (!CasAcqRel(&sched.sysmon_wake, &awake, kAsleep)) {  // pairs: WakeSysmon
    StoreRelaxed(&sched.sysmon_wake, uint32_t{kAwake});
    return;
  }
  StoreRelaxed(&sched.sysmon_deep, deep ? 1u : 0u);
  if (publish) world::EnterBlocked();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: PopIdlePLocked
  bool all_idle = LoadRelaxed(&sched.idle_p_count) == sched.procs;
  if (!deep || all_idle) {
    if (deep && clock_hook == nullptr) {
      plat::FutexWait(&sched.sysmon_wake, kAsleep);
    } else {
      plat::FutexWaitFor(&sched.sysmon_wake, kAsleep, deep ? kDeepNs : ns);
    }
  }
  StoreRelaxed(&sched.sysmon_deep, 0u);
  if (publish) world::LeaveBlocked();
  ExchangeAcqRel(&sched.sysmon_wake, uint32_t{kAwake});  // pairs: WakeSysmon
}

}  // namespace

void WakeSysmon() {
  uint32_t before = ExchangeAcqRel(&sched.sysmon_wake, uint32_t{kCalled});  // pairs: Sleep
  if (before == kAsleep) plat::FutexWake(&sched.sysmon_wake, 1);
}

void RunSysmon() {
  uint64_t pause = kShortest;
  uint32_t quiet = 0, idle = 0;
  uint64_t idle_since = 0;
  BeginRetiring();
  for (;;) {
    FetchAddAcqRel(&sched.sysmon_looks, 1u);  // pairs: Confine
    bool all_idle = LoadRelaxed(&sched.idle_p_count) == sched.procs;
    idle = all_idle && pause == kLongest ? idle + 1 : 0;
    if (idle == 1) idle_since = LoadRelaxed(&sched.now);
    if (UNDERGO_UNLIKELY(idle % kIdleLooks == 1) && on_all_idle != nullptr && idle > 1) {
      on_all_idle();
    }
    // An M in the poller sees to descriptors and takes the process's signals; an idle one does
    // that.
    bool watched = LoadRelaxed(&sched.last_poll) == 0 ||
                   (!NetpollActive() && LoadRelaxed(&sched.idle_m_count) != 0);
    bool deep = idle > kIdleLooks && watched && NearestDeadline() == 0 && TracePeriod() == 0 &&
                !MayRetire() && StacksTrimmedSince(idle_since);
    if (deep) {
      heap::BusyScope busy;
      NetpollVerify(LoadRelaxed(&sched.now), true);
    }
    Sleep(pause, deep);
    uint64_t now = plat::NowNs();
    if (!IsConfined() && Retire(now)) return;
    StoreRelaxed(&sched.now, now);
    bool did = MakeMs();
    {
      heap::BusyScope busy;  // a stop waits until no lock is held
      did |= Retake(now);
      Overdue(now);
      NetpollVerify(now, false);
    }
    if (!IsConfined()) {
      TrimStacks(now);
      TraceIfDue(now);
      AdaptProcs(now);
      LookForSignals(now);
      if (clock_hook != nullptr) clock_hook(now);
    }
    if (UNDERGO_UNLIKELY(preempt_always)) {
      pause = all_idle ? kLongest : kStressPause;
    } else if (did) {
      quiet = 0;
      pause = kShortest;
    } else if (++quiet > kQuietLooks && pause < kLongest) {
      pause = Min(pause * 2, kLongest);
    }
  }
}

}  // namespace undergo::sched
