// SPDX-License-Identifier: Apache-2.0
// The scheduler: which G runs next, and which Ms look for one.
//
// Problem: run any number of threads on GOMAXPROCS kernel threads at a time, switch between them
// for a few dozen nanoseconds, lose no wake-up, keep no CPU busy without work and none idle with
// work.
//
// A G that waits or ends looks at its own P: every 61st time at the global queue, then runnext, the
// ring, the global queue. If there is one, it is switched to directly. Else g0 of the M goes on: it
// looks at the timers and descriptors, steals from other Ps in random order, and at last gives the
// P back and sleeps; one such M sleeps in the poller until the nearest deadline.
//
// Ms that steal are "spinning": at most half as many as there are busy Ps. Who makes work wakes an
// M only when there is an idle P and no spinning M; the last spinning M that finds work wakes the
// next. Two fences make this sound: work is published before `spinning` is read (WakeP), and
// `spinning` is decremented before all queues are looked at once more (FindRunnable).
//
// Two Gs that wake each other on one P need no other M, but each of their wake-ups would send for
// one. So a spinning M leaves what lies in a runnext alone as long as its P goes on, and if it
// finds nothing else it watches: it comes back after a nap, and until then nobody wakes an M for a
// runnext. A G whose waker goes on to compute waits that long, once: then nobody watches any more.
//
// Switching: a G may be in a queue before its registers are saved. Who switches to it waits for
// on_cpu to fall, but only on g0: two Gs that wait for each other's M would wait for ever.
//
// Rejected: a post-switch callback as Go's parkunlock (needs every wait to go through g0), one
// global queue (measured by everybody), stealing timers (they are run where they are).
// Sources: Go's runtime/proc.go; the fences are discussed there at length.
#include "base/assert.h"
#include "plat/clock.h"
#include "plat/context.h"
#include "sched/confine.h"
#include "sched/cpu_time.h"
#include "sched/idle.h"
#include "sched/masks.h"
#include "sched/netpoll.h"
#include "sched/trim.h"

namespace undergo::sched {

constinit Sched sched = {};
constinit SchedEndHook on_sched_end = nullptr;
constinit SchedEndHook on_wishes = nullptr;
constinit SchedEndHook on_thread_end = nullptr;
constinit SchedEndHook on_forked = nullptr;
constinit SchedEndHook on_adopted = nullptr;
constinit SchedEndHook on_call_end = nullptr;

namespace {

constexpr uint32_t kGlobalEvery = 61;    // looks at the local queue for one at the global first
constexpr uint32_t kMaxInherited = 256;  // switches in one slice through runnext
constexpr uint32_t kGlobalBatch = 128;
constexpr uint64_t kPatience = 3000;  // ns that a woken G is left to the P of who woke it
constexpr uint32_t kManyHandovers = 8;
constexpr uint64_t kNap = 100'000;  // ns
constexpr uint64_t kForever = ~uint64_t{0};

// --- the global queue ---

// One G, and a fair share of the rest for p's ring.
G* GlobalGet(P* p, uint32_t most) {
  if (LoadRelaxed(&sched.global.size) == 0) return nullptr;
  GQueue batch;
  {
    sync::MutexLock hold(sched.lock);
    size_t n = Min(sched.global.size, sched.global.size / sched.procs + 1);
    n = Min(n, most);
    for (size_t i = 0; i < n; ++i) batch.Push(sched.global.Pop());
  }
  G* first = batch.Pop();
  while (G* g = batch.Pop()) RunqPut(p, g, false);
  return first;
}

void RingPutAll(P* p, GQueue* q) {
  while (G* g = q->Pop()) {
    g->state = GState::kRunnable;
    RunqPut(p, g, false);
  }
}

// --- timers ---

// The Gs whose deadline in the heap of `whose` is over go to p's ring. One of them is the caller's
// to run or to wake an M for.
bool RunTimers(P* whose, P* p) {
  uint64_t nearest = whose->timers.Nearest();
  if (nearest == 0 || nearest > plat::NowNs()) return false;
  GQueue ready;
  whose->timers.Run(plat::NowNs(), &ready);
  uint32_t n = ready.size;
  RingPutAll(p, &ready);
  if (n > 1) WakeP();
  return n != 0;
}

}  // namespace

uint64_t NearestDeadline() {
  uint64_t nearest = 0;
  for (uint32_t i = 0; i < sched.ps_made; ++i) {
    uint64_t when = sched.ps[i]->timers.Nearest();
    if (when != 0 && (nearest == 0 || when < nearest)) nearest = when;
  }
  return nearest;
}

namespace {

// --- which G runs next ---

G* NextLocal(M* m, P* p) {
  G* g = nullptr;
  uint32_t searches = p->searches + 1;
  StoreRelaxed(&p->searches, searches);
  if (UNDERGO_UNLIKELY(searches % kGlobalEvery == 0)) {
    if (RunTimers(p, p)) WakeP();
    g = GlobalGet(p, 1);
    if (g != nullptr) return StoreRelaxed(&p->tick, p->tick + 1), g;
  }
  bool inherits;
  g = RunqGet(p, &inherits);
  if (inherits) StoreRelaxed(&p->handovers, p->handovers + 1);
  if (UNDERGO_UNLIKELY(inherits && ++m->inherited >= kMaxInherited)) {
    RunqPut(p, g, false);
    g = RunqGet(p, &inherits);
  }
  if (g == nullptr) g = GlobalGet(p, kGlobalBatch);
  if (g != nullptr && !inherits) {
    m->inherited = 0;
    StoreRelaxed(&p->tick, p->tick + 1);
  }
  return g;
}

void SwitchTo(M* m, G* from, G* to) {
  UNDERGO_ASSERT(from->m == m && LoadRelaxed(&to->on_cpu) == 0);
  if (UNDERGO_UNLIKELY(LoadRelaxed(&accounting) != 0)) AccountSwitch(from, to);
  m->mcache = from->g0 ? m->mcache : from->words->mcache;
  to->m = m;
  to->state = GState::kRunning;
  StoreRelaxed(&to->on_cpu, 1u);
  to->words->record = m->record;
  if (!to->g0) to->words->mcache = m->mcache;
  m->cur = to;
  m->prev = from;
  if (UNDERGO_UNLIKELY(m->alt_low != 0) && m->alt_low != to->alt_low) LeaveAltStack(m, from);
  CompilerFence();
  if (UNDERGO_UNLIKELY(LoadRelaxed(&to->trimming) != 0)) AwaitTrimmed(to);  // pairs: Trim
  undergo_switch(&from->sp, to->sp, to->fs);
  FinishSwitch(from);
}

uint32_t Random(M* m) {
  m->rand ^= m->rand << 13;
  m->rand ^= m->rand >> 17;
  m->rand ^= m->rand << 5;
  return m->rand;
}

// What was made runnable just now runs there at once, in the warm cache, unless the G that did so
// goes on for long. True: p is at a standstill with the G in its runnext.
bool KeepsNext(const P* p) {
  if (LoadRelaxed(&p->runnext) == nullptr) return false;
  uint32_t searches = LoadRelaxed(&p->searches);
  uint64_t until = plat::NowNs() + kPatience;
  do {
    if (LoadRelaxed(&p->searches) != searches) return false;
    if ((LoadRelaxed(&p->status) & 3) == kPSyscall) break;
    for (int k = 0; k < 8; ++k) CpuRelax();
  } while (plat::NowNs() < until);
  return LoadRelaxed(&p->runnext) != nullptr;
}

G* Steal(M* m, P* p) {
  constexpr int kPasses = 4;
  for (int pass = 0; pass < kPasses; ++pass) {
    bool last = pass == kPasses - 1;
    uint32_t start = Random(m);
    for (uint32_t i = 0; i < sched.ps_made; ++i) {
      P* victim = sched.ps[(start + i) % sched.ps_made];
      if (victim == p) continue;
      if (last && RunTimers(victim, p)) {
        bool inherits;
        if (G* g = RunqGet(p, &inherits)) return g;
      }
      if (G* g = RunqSteal(p, victim, last && KeepsNext(victim))) return g;
    }
  }
  return nullptr;
}

G* PollNow(P* p) {
  NetpollFlush(false);
  uint64_t polled = LoadRelaxed(&sched.last_poll);
  if (!NetpollActive() || polled == 0) return nullptr;
  GQueue ready;
  Netpoll(&ready);
  // An M that went to wait there meanwhile has stored 0, which must stay.
  CasAcqRel(&sched.last_poll, &polled, plat::NowNs());  // pairs: PollUntilNearest
  G* g = ready.Pop();
  bool more = ready.head != nullptr;
  RingPutAll(p, &ready);
  if (more) WakeP();
  return g;
}

bool AnyWork() {
  if (LoadRelaxed(&sched.global.size) != 0) return true;
  uint64_t now = 0;
  for (uint32_t i = 0; i < sched.ps_made; ++i) {
    // A next G that was put before our own decrement of `spinning` is watched until it is gone.
    if (!RingEmpty(sched.ps[i]) || KeepsNext(sched.ps[i])) return true;
    uint64_t nearest = sched.ps[i]->timers.Nearest();
    if (nearest == 0) continue;
    if (now == 0) now = plat::NowNs();
    if (nearest <= now) return true;
  }
  return false;
}

// Whether Gs have handed over to each other since the M's last look.
bool HandoversGoOn(M* m) {
  uint64_t handed = 0;
  for (uint32_t i = 0; i < sched.ps_made; ++i) handed += LoadRelaxed(&sched.ps[i]->handovers);
  bool many = handed - m->handed >= kManyHandovers;
  m->handed = handed;
  return many;
}

void StopWatching(M* m) {
  if (UNDERGO_LIKELY(!m->watches)) return;
  m->watches = false;
  StoreRelaxed(&sched.watched, 0u);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: WakeP; look at all queues after it
}

// The M that waits for deadlines and descriptors on behalf of all. Without a P; gets one unless
// there is nothing to wait for. `nap`: comes back soon.
void PollUntilNearest(M* m, bool nap) {
  if (ExchangeAcqRel(&sched.last_poll, 0) == 0) {  // pairs: the store below
    if (nap) NetpollBreak();                       // who is there sees it, too
    return;
  }
  StoreRelaxed(&sched.poll_until, kForever);
  if (nap) {
    m->watches = true;
    StoreRelaxed(&sched.watched, 1u);
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: TimerAdded, WakeP
  uint64_t nearest = NearestDeadline();
  if (nap) {
    uint64_t end = plat::NowNs() + kNap;
    nearest = nearest == 0 ? end : Min(nearest, end);
  }
  // Who hands a G to this M breaks the wait afterwards, if need be that of another M.
  bool called = LoadAcquire(&m->guest) != nullptr;  // pairs: HandTo
  if (called || (nearest == 0 && !NetpollActive())) {
    // Who made work meanwhile may believe that the M is there: it looks at all queues once more.
    __atomic_store_n(&sched.last_poll, plat::NowNs(), __ATOMIC_SEQ_CST);  // pairs: WakeP
    // So does another M whose G began to wait for a descriptor or a deadline meanwhile.
    if (called || (!NetpollActive() && NearestDeadline() == 0)) return;
    return PollUntilNearest(m, nap);
  }
  // From here on who adds an earlier deadline breaks the wait.
  if (nearest != 0) StoreRelease(&sched.poll_until, nearest);  // pairs: TimerAdded
  uint64_t now = plat::NowNs();
  uint64_t wait = nearest == 0 ? kForever : nearest > now ? nearest - now : 0;
  NetpollEvents events;
  SleepOnG0(m, [wait, &events] { NetpollWait(wait, &events); });
  GQueue ready;
  NetpollDeliver(events, &ready);
  StoreRelease(&sched.last_poll, plat::NowNs());  // pairs: the exchange above
  P* p = TakeIdleP();
  if (p != nullptr) {
    HoldP(m, p, kPSched);
    bool any = ready.head != nullptr;
    RingPutAll(p, &ready);
    if (any) WakeP();
  } else if (ready.head != nullptr) {
    MakeRunnableGlobally(&ready);
  }
}

// Gs wait for descriptors or deadlines, but no M does on their behalf, though a P is idle. (The M
// of a busy P comes here at last.)
bool PollerMissing() {
  return LoadRelaxed(&sched.last_poll) != 0 && LoadRelaxed(&sched.idle_p_count) != 0 &&
         (NetpollActive() || NearestDeadline() != 0);
}

// It wakes the next M when it has found work.
void StartSpinning(M* m) {
  if (m->spinning) return;
  FetchAddAcqRel(&sched.spinning, 1u);  // pairs: WakeP
  m->spinning = true;
}

// On g0, in the scheduler. Returns with a P; null: the M has to end.
G* FindRunnable(M* m) {
  for (;;) {
    if (UNDERGO_UNLIKELY(LoadAcquire(&m->guest) != nullptr)) {  // pairs: HandTo
      if (G* g = TakeGuest(m)) return g;
    }
    P* p = m->p;
    if (p == nullptr) {
      // A new M was made because there is work; one that lost its P may find some as well.
      StopWatching(m);
      if (m->dirty || m->ending) return nullptr;
      if (AnyWork() && (p = TakeIdleP()) != nullptr) {
        HoldP(m, p, kPSched);
        StartSpinning(m);  // it may be all that came of several calls of WakeP
      } else if (PollerMissing()) {
        if (LeaveToFirst(m)) return nullptr;
        PollUntilNearest(m, false);  // HandOffP wanted an M for that
      } else {
        StopM(m);
      }
      continue;
    }
    RunTimers(p, p);
    G* g = NextLocal(m, p);
    if (g == nullptr) g = PollNow(p);
    if (g != nullptr) return g;
    uint32_t busy = sched.procs - LoadRelaxed(&sched.idle_p_count);
    if (m->spinning || 2 * LoadRelaxed(&sched.spinning) < busy) {
      StartSpinning(m);
      if ((g = Steal(m, p)) != nullptr) return g;
    }
    if (!GiveUpP(m, p)) continue;
    bool was_spinning = m->spinning;
    m->spinning = false;
    if (was_spinning) __atomic_fetch_sub(&sched.spinning, 1u, __ATOMIC_SEQ_CST);  // pairs: WakeP
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool nap = was_spinning && HandoversGoOn(m);
    if (!nap) {
      StopWatching(m);
      NetpollFlush(true);
    }
    if (AnyWork() && (p = TakeIdleP()) != nullptr) {
      HoldP(m, p, kPSched);
      if (was_spinning) StartSpinning(m);
      continue;
    }
    if (LeaveToFirst(m)) return nullptr;
    PollUntilNearest(m, nap);
  }
}

void StopSpinning(M* m) {
  m->spinning = false;
  uint32_t before = __atomic_fetch_sub(&sched.spinning, 1u, __ATOMIC_SEQ_CST);  // pairs: WakeP
  if (before == 1) WakeP();
}

}  // namespace

// --- what the rest of sched/ uses ---

void AwaitOffCpu(const G* g) {
  for (uint32_t i = 0; LoadAcquire(&g->on_cpu) != 0; ++i) {  // pairs: FinishSwitch
    if (i % 256 == 255 && !IsConfined()) {
      plat::Syscall(__NR_sched_yield);
    } else {
      CpuRelax();
    }
  }
}

P* EnterSched(G* g) {
  g->words->busy++;
  g->words->in_sched++;
  CompilerFence();
  M* m = g->m;
  P* p = m->p;
  if (UNDERGO_UNLIKELY(p == nullptr)) return nullptr;
  uint32_t running = PStatus(m->id, kPRunning);
  if (CasAcqRel(&p->status, &running, PStatus(m->id, kPSched))) return p;  // pairs: Retake
  m->p = nullptr;
  StoreRelaxed(&m->lost, 0u);
  return nullptr;
}

void LeaveSched(G* g) {
  M* m = g->m;
  if (UNDERGO_UNLIKELY(m->p == nullptr)) {
    P* p = TakeIdleP();
    if (p != nullptr) {
      HoldP(m, p, kPSched);
    } else {
      g->state = GState::kRunnable;
      GQueue q;
      q.Push(g);
      MakeRunnableGlobally(&q);
      Schedule(g);
    }
    m = g->m;
  }
  StoreRelease(&m->p->status, PStatus(m->id, kPRunning));  // pairs: Retake
  CompilerFence();
  g->words->in_sched--;
  heap::EndBusy();
  if (UNDERGO_UNLIKELY(LoadAcquire(&g->wishes) != nullptr) && g->words->busy == 0) on_wishes(g);
  RunDeferred();
}

void FinishSwitch(G* g) {
  M* m = g->m;
  G* prev = m->prev;
  heap::ThreadWords* words = g->words;
  if (UNDERGO_UNLIKELY(prev->words->stop_pending != 0)) {
    prev->words->stop_pending = 0;
    words->stop_pending = 1;
  }
  // What came on this M may run on any thread; what was meant for prev alone waits for it.
  if (UNDERGO_UNLIKELY(LoadRelaxed(&prev->words->deferred) != 0)) {
    if (prev->g0) StoreRelaxed(&prev->words->deferred, 0u);
    StoreRelaxed(&words->deferred, 1u);
  }
  if (world::Record* r = m->record; r != nullptr) {
    r->words = words;
    r->own_low = g->stack_low;
    r->own_size = g->stack_high - g->stack_low;
    r->stack_low = g->scan_low;
    r->stack_high = g->scan_high;
  }
  if (UNDERGO_UNLIKELY(g->alt_low != m->alt_low)) AdoptAltStack(m, g);
  if (UNDERGO_UNLIKELY(prev->mask_unsure)) AskForMask(m, prev);
  StoreRelease(&prev->on_cpu, 0u);  // pairs: AwaitOffCpu
  if (UNDERGO_UNLIKELY(g->mask != m->mask) && !g->g0) SetKernelMask(m, g->mask);
}

void Schedule(G* g) {
  M* m = g->m;
  P* p = m->p;
  bool guest = LoadRelaxed(&m->guest) != nullptr;
  G* next = p != nullptr && UNDERGO_LIKELY(!guest) ? NextLocal(m, p) : nullptr;
  if (next == g) {
    g->state = GState::kRunning;
    return;
  }
  if (next != nullptr && LoadAcquire(&next->on_cpu) == 0) {  // pairs: FinishSwitch
    SwitchTo(m, g, next);
    return;
  }
  m->next_g = next;
  SwitchTo(m, g, &m->g0);
}

void RunM(M* m) {
  for (;;) {
    G* g = m->next_g;
    m->next_g = nullptr;
    if (g == nullptr) g = FindRunnable(m);
    if (g == nullptr) return;
    if (UNDERGO_UNLIKELY(m->watches)) {
      StopWatching(m);
      if (!m->spinning) WakeP();
    }
    if (m->spinning) StopSpinning(m);
    AwaitOffCpu(g);
    SwitchTo(m, &m->g0, g);
  }
}

void MakeRunnable(P* p, G* g, bool next) {
  g->state = GState::kRunnable;
  if (p != nullptr) {
    RunqPut(p, g, next);
    WakeP(next && RingEmpty(p));
    return;
  }
  GQueue q;
  q.Push(g);
  MakeRunnableGlobally(&q);
}

void MakeRunnableGlobally(GQueue* gs) {
  for (G* g = gs->head; g != nullptr; g = g->next) g->state = GState::kRunnable;
  {
    sync::MutexLock hold(sched.lock);
    sched.global.Append(gs);
  }
  WakeP();
}

void TimerAdded(uint64_t when) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: PollUntilNearest
  if (LoadAcquire(&sched.last_poll) == 0 && when < LoadAcquire(&sched.poll_until)) NetpollBreak();
}

}  // namespace undergo::sched
