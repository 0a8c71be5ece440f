// SPDX-License-Identifier: Apache-2.0
// Waiting and waking.
#include "sched/park.h"

#include <errno.h>
#include <pthread.h>

#include "base/assert.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/syscall.h"
#include "sched/confine.h"
#include "sched/sched.h"
#include "world/blocked_call.h"
#include "world/record.h"
#include "world/world.h"

namespace undergo::sched {

namespace {

constexpr auto kArmed = static_cast<uint32_t>(Wake::kArmed);

// Counts as stopped meanwhile. `span` 0: no limit.
UNDERGO_NOINLINE long SleepOn(const uint32_t* word, uint64_t span, bool cancellable) {
  __builtin_unwind_init();  // the program's registers onto the stack, for the collector
  bool published = world::publishing;
  if (published) world::EnterBlocked();
  int type;
  if (cancellable) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
  long result = span == 0 ? plat::FutexWait(word, kArmed) : plat::FutexWaitFor(word, kArmed, span);
  if (cancellable) pthread_setcanceltype(type, nullptr);
  if (published) world::LeaveBlocked();
  return result;
}

// A thread without a G, in the kernel. A handler that ran is an interruption.
Wake WaitInKernel(uint32_t* word, uint64_t deadline, bool interruptible, bool cancellable) {
  for (;;) {
    uint32_t now = LoadAcquire(word);  // pairs: Waiter::End
    if (now != kArmed) return static_cast<Wake>(now);
    uint64_t time = deadline == kNever ? 0 : plat::NowNs();
    if (deadline == kNever || time < deadline) {
      uint64_t span = deadline == kNever ? 0 : deadline - time;
      bool handled = SleepOn(word, span, cancellable) == -EINTR;
      if (!handled || !interruptible) continue;
      uint32_t armed = kArmed;
      if (CasAcqRel(word, &armed, static_cast<uint32_t>(Wake::kInterrupted))) {  // pairs: End
        return Wake::kInterrupted;
      }
      continue;
    }
    uint32_t armed = kArmed;
    if (CasAcqRel(word, &armed, static_cast<uint32_t>(Wake::kTimeout))) return Wake::kTimeout;
  }
}

}  // namespace

void EndHold() {
  heap::thread_words.waiter = nullptr;
  RunDeferred();
}

void Waiter::Arm() {
  heap::thread_words.waiter = this;
  heap::thread_words.handled = 0;
  CompilerFence();
  if (g_ != nullptr) {
    g_->why = why_;
    g_->since = LoadRelaxed(&sched.now);
    g_->state = GState::kWaiting;
  }
  StoreRelease(word(), kArmed);  // pairs: End
}

Wake Waiter::Wait(uint64_t deadline, bool interruptible) {
  interruptible_ = interruptible;
  CompilerFence();
  // A handler may have forked since g_ was read; then nobody will run anything else.
  if (g_ == nullptr || UNDERGO_UNLIKELY(g_->m == nullptr)) {
    if (LoadRelaxed(&heap::thread_words.deferred) != 0) Disturb();
    Wake why = WaitInKernel(word(), deadline, interruptible, cancellable_);
    if (why == Wake::kReady) EndHold();
    return why;
  }
  return WaitInScheduler(EnterSched(g_), deadline, interruptible);
}

Wake Waiter::WaitInScheduler(P* p, uint64_t deadline, bool interruptible) {
  G* g = g_;
  bool timed = deadline != kNever;
  if (timed) {
    g->timer.when = deadline;
    g->timer.p = p != nullptr ? p : sched.ps[0];
    if (g->timer.p->timers.Add(g)) {
      TimerAdded(deadline);
    } else {
      ClaimWake(g, Wake::kTimeout) ? MakeRunnable(p, g, false) : void();
    }
  }
  // Pairs with Interrupt: either it sees the armed word, or we see the count.
  if (interruptible) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted = LoadRelaxed(&g->interrupts) != 0 || LoadRelaxed(&g->words->deferred) != 0;
    if (wanted && ClaimWake(g, Wake::kInterrupted)) {
      MakeRunnable(p, g, true);
    }
  }
  Schedule(g);
  g->why = WaitReason::kNone;
  auto why = static_cast<Wake>(LoadRelaxed(&g->wake));
  // Also when it is out already: who took it out may be about to end the wait, and must not end the
  // next one.
  if (timed && why != Wake::kTimeout) g->timer.p->timers.Remove(g);
  if (why == Wake::kReady) g->words->waiter = nullptr;
  LeaveSched(g);
  return why;
}

bool Waiter::Disarm() {
  G* g = g_;
  uint32_t armed = kArmed;
  if (CasAcqRel(word(), &armed, static_cast<uint32_t>(Wake::kNone))) {  // pairs: End
    if (g != nullptr) g->state = GState::kRunning;
    EndHold();
    return false;
  }
  if (g != nullptr) {
    EnterSched(g);
    Schedule(g);  // it is in a queue
    LeaveSched(g);
  }
  EndHold();
  return true;
}

bool Waiter::Abandon() {
  world::LeaveBlocked();
  uint32_t armed = kArmed;
  return !CasAcqRel(word(), &armed, static_cast<uint32_t>(Wake::kNone));  // pairs: End
}

bool Waiter::Claim(Wake why, GQueue* ready) {
  if (g_ == nullptr) return End(why);
  G* g = g_;
  if (!Active()) return false;  // of a thread that this forked child does not have
  if (!ClaimWake(g, why)) return false;
  ready->Push(g);
  return true;
}

void Waiter::Disturb() {
  if (g_ != nullptr) {
    StoreRelaxed(&g_->interrupts, 1u);  // Wait looks at it
  } else if (interruptible_) {
    uint32_t armed = kArmed;
    CasAcqRel(&own_, &armed, static_cast<uint32_t>(Wake::kInterrupted));  // pairs: WaitInKernel
  }
}

bool Waiter::End(Wake why, bool next) {
  if (g_ == nullptr) {
    uint32_t armed = kArmed;
    if (!CasAcqRel(&own_, &armed, static_cast<uint32_t>(why))) return false;  // pairs: Wait
    plat::FutexWake(&own_, 1);
    return true;
  }
  G* g = g_;
  if (!ClaimWake(g, why)) return false;
  MakeReady(g, next);
  return true;
}

void Waiter::EndInScheduler(P* p) {
  if (g_ == nullptr) {
    End(Wake::kReady);
  } else if (ClaimWake(g_, Wake::kReady)) {
    MakeRunnable(p, g_, true);
  }
}

void MakeReady(G* g, bool next) {
  G* self = Current();
  if (self == nullptr) {
    GQueue q;
    q.Push(g);
    world::SignalsOff off;  // a handler that comes here again must not wait for our lock
    heap::BusyScope busy;   // nor is the world stopped with it held
    return MakeRunnableGlobally(&q);
  }
  P* p = EnterSched(self);
  MakeRunnable(p, g, next);
  LeaveSched(self);
}

void MakeNewReady(G* g) {
  G* self = Current();
  if (self == nullptr) return MakeReady(g, false);
  P* p = EnterSched(self);
  if (p == nullptr) {
    MakeRunnable(p, g, false);
  } else {
    g->state = GState::kRunnable;
    RunqPutNew(p, g);
    WakeP(RingEmpty(p));
  }
  LeaveSched(self);
}

bool Interrupt(G* g) {
  FetchAddAcqRel(&g->interrupts, 1u);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: Waiter::Wait
  if (!ClaimWake(g, Wake::kInterrupted)) return false;
  MakeReady(g, false);
  return true;
}

namespace {

// Before p looks for the next G. True now and then while those of p do nothing but yield: they wait
// for one on another M, and that may wait for this CPU.
bool YieldsInVain(P* p) {
  constexpr uint32_t kMany = 256;
  uint32_t look = p->searches + 1;
  p->yields = p->yielded + 1 == look ? p->yields + 1 : 0;
  p->yielded = look;
  return p->yields % kMany == kMany - 1;
}

}  // namespace

void Calm(G* g) { ExchangeAcqRel(&g->interrupts, 0u); }  // pairs: Interrupt

bool Yield(Yielding how) {
  G* g = Current();
  if (g == nullptr) return false;
  P* p = EnterSched(g);
  bool others = p == nullptr || !RunqEmpty(p) || LoadRelaxed(&g->m->guest) != nullptr ||
                LoadRelaxed(&sched.global.size) != 0;
  bool vain = false;
  if (others || how == Yielding::kAnyway) {
    g->state = GState::kRunnable;
    if (p != nullptr && how == Yielding::kBehindNeighbours) {
      vain = YieldsInVain(p);
      RunqPut(p, g, false);
    } else {
      GQueue q;
      q.Push(g);
      MakeRunnableGlobally(&q);
    }
    Schedule(g);
  }
  LeaveSched(g);
  if (UNDERGO_UNLIKELY(vain) && !IsConfined()) plat::Syscall(__NR_sched_yield);
  return others;
}

const char* NameOf(WaitReason why) {
  static constexpr const char* kNames[] = {
      "",     "sleep", "mutex",   "condition variable", "semaphore", "rwlock", "barrier", "once",
      "join", "futex", "IO read", "IO write",           "poll",      "signal"};
  static_assert(sizeof kNames / sizeof kNames[0] == static_cast<size_t>(WaitReason::kCount));
  return kNames[static_cast<size_t>(why)];
}

}  // namespace undergo::sched
