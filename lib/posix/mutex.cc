// SPDX-License-Identifier: Apache-2.0
// pthread_mutex_*, mtx_*.
//
// Problem: a contended lock must park a G, yet static initialisers, locks taken before the first
// thread was made, and libc's own functions must agree with us about every word of the object. So
// the word protocol is glibc's: 0 free, 1 locked, 2 locked and somebody waits; owner, number of
// users and kind in their places. Robust and inheriting mutexes hold the owner's id in the word,
// and bit 31 when somebody waits; protecting ones have their ceiling above bit 19.
//
// Who waits sleeps in the queue of the word's address (sched/sema.h). The word says "waits" only
// with that queue locked, so its unlocker finds the sleeper, or there is none. An unlocker frees
// the word and wakes one sleeper, which competes with whoever runs: in a queue hand-over would cost
// a switch per critical section. A sleeper that lost for 1 ms asks for the lock itself and gets it
// with the next unlock (as Go's mutexes). Who was woken while others sleep takes the lock with the
// mark for them.
//
// Before the scheduler runs, and for mutexes shared with other processes, libc's functions do it.
// Those need ids that the kernel knows for robust and inheriting ones: their thread keeps its
// kernel thread from the first such lock on, and shows the kernel's id during the call.
//
// Priorities mean nothing among Gs: inheritance has nothing to do. Ceilings are for threads with a
// real-time policy, which have kernel threads of their own (posix/ceiling.cc).
// Sources: glibc's pthread_mutex_lock.c for what is observable; Go's sync.Mutex for fairness.
#include "posix/mutex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>

#include "plat/clock.h"
#include "plat/futex.h"
#include "posix/ceiling.h"
#include "posix/deadline.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/robust.h"
#include "sched/tcb.h"
#include "sched/thread.h"

namespace undergo::posix {

namespace {

using sched::Sleeper;
using sched::Visit;
using sched::Wake;

constexpr int kInconsistent = INT_MAX;  // glibc's owners of robust mutexes
constexpr int kNotRecoverable = INT_MAX - 1;
constexpr uint32_t kCeilingMask = 0xFFF80000;
constexpr uint64_t kStarving = 1'000'000;     // ns of losing
constexpr uint32_t kSpins = 4, kPauses = 30;  // as Go's

// 1: libc may release mutexes that are not shared, and wait for them (ExpectWaitersInLibc).
constinit uint32_t waiters_in_libc = 0;  // atomic

uint32_t* WordOf(pthread_mutex_t* m) { return reinterpret_cast<uint32_t*>(&m->__data.__lock); }

// The words of one mutex: what it holds when free, taken by this thread, and waited for.
struct Words {
  bool ids;       // the owner's id is in the word
  uint32_t tid;   // of the caller
  uint32_t base;  // ceiling

  bool IsFree(uint32_t w) const { return ids ? (w & FUTEX_TID_MASK) == 0 : (w & 3) == 0; }
  bool IsMarked(uint32_t w) const { return ids ? (w & FUTEX_WAITERS) != 0 : (w & 3) == 2; }
  uint32_t Mark(uint32_t w) const { return ids ? w | FUTEX_WAITERS : (w & ~3u) | 2; }
  // What `owner` puts over a free word.
  uint32_t Taken(uint32_t w, uint32_t owner, bool marked) const {
    if (!ids) return (w & ~3u) | (marked ? 2 : 1);
    return owner | (w & FUTEX_WAITERS) | (marked ? FUTEX_WAITERS : 0);
  }
};

Words WordsOf(const pthread_mutex_t* m, int kind) {
  auto tid = static_cast<uint32_t>(OwnTid());
  if ((kind & (kRobust | kInherit)) != 0) return {true, tid, 0};
  if ((kind & kProtect) == 0) return {false, tid, 0};
  return {false, tid, static_cast<uint32_t>(m->__data.__lock) & kCeilingMask};
}

// --- the word ---

bool TryWord(uint32_t* word, const Words& k, bool marked, uint32_t* before) {
  uint32_t w = LoadRelaxed(word);
  while (k.IsFree(w)) {
    *before = w;
    if (CasAcqRel(word, &w, k.Taken(w, k.tid, marked))) return true;  // pairs: Release
  }
  return false;
}

// Another P runs something: the owner may be about to unlock.
bool SpinForWord(uint32_t* word, const Words& k, uint32_t* before) {
  for (uint32_t i = 0; i < kSpins; ++i) {
    if (!sched::OthersRun()) return false;
    for (uint32_t j = 0; j < kPauses; ++j) CpuRelax();
    if (TryWord(word, k, false, before)) return true;
  }
  return false;
}

// How a wait for a word begins: nothing happened yet, or an unlocker woke the thread already, which
// takes the word with the mark if it has to.
struct Start {
  bool woken = false, marked = false;
};

// Woken out of the queue of a word: who sleeps behind must not be forgotten.
bool TakesMarked(const Sleeper& s) { return s.more || LoadRelaxed(&waiters_in_libc) != 0; }

// The word is `marked`. As long as it is that, an unlocker that wakes, libc too, or a handler.
void WaitInKernel(uint32_t* word, uint32_t marked, uint64_t deadline) {
  uint64_t now = deadline == sched::kNever ? 0 : plat::NowNs();
  sched::G* g = sched::EnterCall();
  if (deadline == sched::kNever) {
    plat::FutexWait(word, marked);
  } else if (now < deadline) {
    plat::FutexWaitFor(word, marked, deadline - now);
  }
  sched::ExitCall(g);
}

// 0, ETIMEDOUT or EINVAL; *before is what the word was.
UNDERGO_COLD int WaitForWord(uint32_t* word, const Words& k, Until until, uint32_t* before,
                             Start start) {
  auto [woken, marked] = start;
  if (!woken && SpinForWord(word, k, before)) return 0;
  uint64_t deadline = sched::kNever, began = 0;
  if (until.t != nullptr) {
    int error = DeadlineOf(until.clock, until.t, &deadline);
    if (error != 0) return error;
  }
  Sleeper s(sched::WaitReason::kMutex, word);
  for (;;) {
    if (woken && TryWord(word, k, marked, before)) return 0;
    Visit v(word);
    uint32_t w = LoadRelaxed(word), wanted;
    for (;;) {
      *before = w;
      bool free = k.IsFree(w);
      wanted = free ? k.Taken(w, k.tid, marked || !v.Empty()) : k.Mark(w);
      if (w != wanted && !CasAcqRel(word, &w, wanted)) continue;  // pairs: Release
      if (free) return 0;
      break;
    }
    if (UNDERGO_UNLIKELY(LoadRelaxed(&waiters_in_libc) != 0)) {
      v.Leave();
      WaitInKernel(word, wanted, deadline);
      if (deadline != sched::kNever && plat::NowNs() >= deadline) return ETIMEDOUT;
      woken = marked = true;
      continue;
    }
    s.detail = k.tid;
    if (woken) {
      if (began == 0) began = plat::NowNs();
      if (plat::NowNs() - began > kStarving) s.detail |= uint64_t{1} << 32;
    }
    Wake why = v.Wait(&s, deadline, true, woken);
    if (why == Wake::kTimeout) return ETIMEDOUT;
    if (why == Wake::kInterrupted) {
      AttendToInterrupt();
      woken = false;
      continue;
    }
    if (s.granted) {
      // A thread without a G runs as soon as it is woken; the word is written before the waker
      // leaves the queue.
      if (sched::Current() == nullptr) Visit(word).Leave();
      return 0;
    }
    woken = true;
    marked = TakesMarked(s);
  }
}

// The word is marked; the queue is locked. Frees the word, or hands it over, and wakes.
UNDERGO_COLD void ReleaseMarked(uint32_t* word, const Words& k, uint32_t free, Visit* v) {
  uint64_t detail = 0;
  bool more = LoadRelaxed(&waiters_in_libc) != 0;
  bool any = v->WakeOne([&](Sleeper* s) {
    detail = s->detail;
    more |= s->more;
    s->granted = detail >> 32 != 0;
  });
  // Nobody but us changes the word until here, and who was woken comes to this queue first.
  bool handed = any && detail >> 32 != 0;
  StoreRelease(word, handed ? k.Taken(free, static_cast<uint32_t>(detail), more) : free);
  // pairs: TryWord
  v->Leave();
  if (!any || (LoadRelaxed(&waiters_in_libc) != 0 && !handed)) {
    plat::Syscall(__NR_futex, word, k.ids ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, 1);
  }
}

void Release(uint32_t* word, const Words& k, uint32_t free) {
  uint32_t taken = k.Taken(free, k.tid, false);
  if (UNDERGO_LIKELY(CasAcqRel(word, &taken, free))) return;  // pairs: TryWord
  Visit v(word);
  ReleaseMarked(word, k, free, &v);
}

// --- locks of all kinds ---

int Busy(const pthread_mutex_t* m, int kind, bool* again) {
  *again = false;
  if ((kind & kTypeBits) == PTHREAD_MUTEX_ERRORCHECK) return EDEADLK;
  if ((kind & kTypeBits) != PTHREAD_MUTEX_RECURSIVE) return 0;
  if (m->__data.__count == UINT_MAX) return EAGAIN;
  *again = true;
  return 0;
}

enum class How { kLock, kTry, kRelock };

bool OwnsWord(const pthread_mutex_t* m, int kind, int tid) {
  if ((kind & (kRobust | kInherit)) == 0) return m->__data.__owner == tid;
  return (LoadRelaxed(&m->__data.__lock) & static_cast<int>(FUTEX_TID_MASK)) == tid;
}

// The word is ours, *before* says what it was.
int Enter(pthread_mutex_t* m, int kind, const Words& k, uint32_t before, How how) {
  if ((kind & kRobust) != 0) {
    if ((before & FUTEX_OWNER_DIED) != 0) {
      m->__data.__count = 1;
      m->__data.__owner = kInconsistent;
      sched::LinkRobust(m, (kind & kInherit) != 0);
      return EOWNERDEAD;
    }
    if (m->__data.__owner == kNotRecoverable) {
      Release(WordOf(m), k, 0);
      return ENOTRECOVERABLE;
    }
    sched::LinkRobust(m, (kind & kInherit) != 0);
  }
  m->__data.__count = 1;
  m->__data.__owner = static_cast<int>(k.tid);
  if (how != How::kRelock) ++m->__data.__nusers;
  return 0;
}

int LockKind(pthread_mutex_t* m, int kind, Until until, How how, Start start = {}) {
  Words k = WordsOf(m, kind);
  if (OwnsWord(m, kind, static_cast<int>(k.tid))) {
    bool again = false;
    int type = kind & kTypeBits;
    if (how == How::kTry && type != PTHREAD_MUTEX_RECURSIVE) return EBUSY;
    int error = Busy(m, kind, &again);
    if (error != 0) return error;
    if (again) {
      ++m->__data.__count;
      return 0;
    }
  }
  bool protects = (kind & kProtect) != 0;
  int error = protects ? RaiseTo(static_cast<int>(k.base >> kCeilingShift)) : 0;
  if (error != 0) return error;
  uint32_t before = 0;
  if (!TryWord(WordOf(m), k, start.marked, &before)) {
    error = how == How::kTry ? EBUSY : WaitForWord(WordOf(m), k, until, &before, start);
    if (error != 0) {
      if (protects) SettlePriority();
      return error;
    }
  }
  if (protects) HoldCeiling(m);
  return Enter(m, kind, k, before, how);
}

int UnlockKind(pthread_mutex_t* m, int kind, bool users) {
  Words k = WordsOf(m, kind);
  if (int error = MayUnlock(m); error != 0) return error;
  int owner = 0;
  if ((kind & kRobust) != 0 && m->__data.__owner == kInconsistent) {
    owner = kNotRecoverable;
  } else if ((kind & kTypeBits) == PTHREAD_MUTEX_RECURSIVE && --m->__data.__count != 0) {
    return 0;
  }
  if ((kind & kRobust) != 0) sched::UnlinkRobust(m);
  bool raised = (kind & kProtect) != 0 && DropCeiling(m);
  m->__data.__owner = owner;
  if (users) --m->__data.__nusers;
  Release(WordOf(m), k, k.base);
  if (raised) SettlePriority();
  return 0;
}

// --- shared with other processes ---

template <typename F>
UNDERGO_COLD int LockShared(pthread_mutex_t* m, int kind, F lock) {
  KernelId id(kind);
  int error = EBUSY;
  // Libc's trylock keeps a robust mutex locked that it calls not recoverable.
  if ((kind & kRobust) == 0) error = real::pthread_mutex_trylock(m);
  if (error != EBUSY) return error;
  sched::SharedWait shared;
  sched::G* g = sched::EnterCall();
  error = lock();
  sched::ExitCall(g);
  return error;
}

// --- the common kind ---

UNDERGO_INLINE bool TryNormal(pthread_mutex_t* m) {
  int free = 0;
  if (!CasAcqRel(&m->__data.__lock, &free, 1)) return false;  // pairs: Release
  m->__data.__owner = OwnTid();
  ++m->__data.__nusers;
  return true;
}

UNDERGO_COLD int LockSlow(pthread_mutex_t* m) {
  int kind = MutexKindOf(m);
  if (IsSharedMutex(kind)) {
    return LockShared(m, kind, [m] { return real::pthread_mutex_lock(m); });
  }
  return LockKind(m, kind, {}, How::kLock);
}

UNDERGO_COLD int UnlockSlow(pthread_mutex_t* m) {
  int kind = MutexKindOf(m);
  if (!IsSharedMutex(kind)) return UnlockKind(m, kind, true);
  KernelId id(kind);
  return real::pthread_mutex_unlock(m);
}

int LockUntil(pthread_mutex_t* m, Until until) {
  int kind = MutexKindOf(m);
  if (IsSharedMutex(kind)) {
    return LockShared(
        m, kind, [m, until] { return real::pthread_mutex_clocklock(m, until.clock, until.t); });
  }
  return LockKind(m, kind, until, How::kLock);
}

int ToThrd(int error) {
  switch (error) {
    case 0: return thrd_success;
    case EBUSY: return thrd_busy;
    case ETIMEDOUT: return thrd_timedout;
    case ENOMEM: return thrd_nomem;
    default: return thrd_error;
  }
}

}  // namespace

int MayUnlock(const pthread_mutex_t* m) {
  int kind = MutexKindOf(m);
  int type = kind & kTypeBits;
  bool checked = type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK ||
                 (kind & (kRobust | kInherit)) != 0;
  if (!checked) return 0;
  int tid = OwnTid();
  if ((kind & (kRobust | kInherit)) != 0) return OwnsWord(m, kind, tid) ? 0 : EPERM;
  bool locked = (m->__data.__lock & 3) != 0 || type == PTHREAD_MUTEX_RECURSIVE;
  return m->__data.__owner == tid && locked ? 0 : EPERM;
}

KernelId::KernelId(int kind) : field_(nullptr) {
  if ((kind & (kRobust | kInherit)) == 0 || sched::Self() == nullptr) return;
  sched::PinForRobust();
  field_ = sched::TidField(sched::Self()->fs);
  shown_ = *field_;
  *field_ = static_cast<int>(plat::Syscall(__NR_gettid));
}

KernelId::~KernelId() {
  if (field_ != nullptr) *field_ = shown_;
}

void ExpectWaitersInLibc(pthread_mutex_t* m) {
  StoreRelaxed(&waiters_in_libc, 1u);
  if (!sched::MaySleep(WordOf(m))) return;
  Visit v(WordOf(m));
  v.WakeAll();
}

void UnlockForWait(pthread_mutex_t* m, sched::Visit* v) {
  int kind = MutexKindOf(m);
  Words k = WordsOf(m, kind);
  int owner = 0;
  if ((kind & kRobust) != 0 && m->__data.__owner == kInconsistent) {
    owner = kNotRecoverable;
  } else if ((kind & kTypeBits) == PTHREAD_MUTEX_RECURSIVE && --m->__data.__count != 0) {
    return;
  }
  if ((kind & kRobust) != 0) sched::UnlinkRobust(m);
  if ((kind & kProtect) != 0 && DropCeiling(m)) SettlePriority();
  m->__data.__owner = owner;
  uint32_t taken = k.Taken(k.base, k.tid, false);
  uint32_t* word = WordOf(m);
  if (UNDERGO_LIKELY(CasAcqRel(word, &taken, k.base))) return;  // pairs: TryWord
  v->MoveTo(word);
  bool any = v->WakeOne();
  StoreRelease(word, k.base);  // pairs: TryWord
  if (!any || LoadRelaxed(&waiters_in_libc) != 0) {
    plat::Syscall(__NR_futex, word, k.ids ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, 1);
  }
}

int LockAfterWait(pthread_mutex_t* m, bool from_queue, const Sleeper& s) {
  int kind = MutexKindOf(m);
  Start start;
  if (from_queue) start = {true, TakesMarked(s)};
  if (kind == 0) {
    int free = 0;
    if (CasAcqRel(&m->__data.__lock, &free, start.marked ? 2 : 1)) {  // pairs: Release
      m->__data.__owner = OwnTid();
      return 0;
    }
  }
  return LockKind(m, kind, {}, How::kRelock, start);
}

bool RequeueToMutex(Visit* v, uint32_t n) {
  Sleeper* s = v->First();
  if (s == nullptr || s->then == nullptr) return false;
  const void* then = s->then;
  auto* m = static_cast<pthread_mutex_t*>(const_cast<void*>(then));
  bool plain = (MutexKindOf(m) & ~kTypeBits) == 0;
  if (!plain || m->__data.__owner != OwnTid() || (LoadRelaxed(&m->__data.__lock) & 3) == 0) {
    return false;
  }
  if (!v->Reach(then)) s = v->First();
  if (s == nullptr || s->then != then) return false;
  // Others only mark it as well.
  StoreRelaxed(&m->__data.__lock, 2);
  for (; n > 0 && s != nullptr && s->then == then; --n, s = v->First()) v->Requeue(1);
  return true;
}

namespace {

// Out of line, so that the usual way needs no frame.
UNDERGO_COLD int LockByLibc(pthread_mutex_t* m) {
  if (real::pthread_mutex_lock == nullptr) real::Resolve();
  return real::pthread_mutex_lock(m);
}

UNDERGO_COLD int UnlockByLibc(pthread_mutex_t* m) {
  if (real::pthread_mutex_unlock == nullptr) real::Resolve();
  return real::pthread_mutex_unlock(m);
}

UNDERGO_COLD int ReleaseNormal(pthread_mutex_t* m) {
  Release(WordOf(m), {false, 0, 0}, 0);
  return 0;
}

}  // namespace

int pthread_mutex_lock(pthread_mutex_t* m) {
  if (UNDERGO_UNLIKELY(!sched::Active())) return LockByLibc(m);
  if (UNDERGO_LIKELY(MutexKindOf(m) == 0 && TryNormal(m))) return 0;
  return LockSlow(m);
}

int pthread_mutex_unlock(pthread_mutex_t* m) {
  if (UNDERGO_UNLIKELY(!sched::Active())) return UnlockByLibc(m);
  if (UNDERGO_UNLIKELY(MutexKindOf(m) != 0)) return UnlockSlow(m);
  m->__data.__owner = 0;
  --m->__data.__nusers;
  int taken = 1;
  if (UNDERGO_LIKELY(CasAcqRel(&m->__data.__lock, &taken, 0))) return 0;  // pairs: TryNormal
  return ReleaseNormal(m);
}

int pthread_mutex_trylock(pthread_mutex_t* m) {
  if (UNDERGO_UNLIKELY(!sched::Active())) {
    if (real::pthread_mutex_trylock == nullptr) real::Resolve();
    return real::pthread_mutex_trylock(m);
  }
  int kind = MutexKindOf(m);
  if (UNDERGO_LIKELY(kind == 0)) return TryNormal(m) ? 0 : EBUSY;
  if (!IsSharedMutex(kind)) return LockKind(m, kind, {}, How::kTry);
  KernelId id(kind);
  return real::pthread_mutex_trylock(m);
}

int pthread_mutex_clocklock(pthread_mutex_t* m, clockid_t clock, const struct timespec* t) {
  if (UNDERGO_UNLIKELY(!sched::Active())) {
    if (real::pthread_mutex_clocklock == nullptr) real::Resolve();
    return real::pthread_mutex_clocklock(m, clock, t);
  }
  if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC) return EINVAL;
  return LockUntil(m, {clock, t});
}

int pthread_mutex_timedlock(pthread_mutex_t* m, const struct timespec* t) {
  if (UNDERGO_UNLIKELY(!sched::Active())) {
    if (real::pthread_mutex_timedlock == nullptr) real::Resolve();
    return real::pthread_mutex_timedlock(m, t);
  }
  return LockUntil(m, {CLOCK_REALTIME, t});
}

int pthread_mutex_init(pthread_mutex_t* m, const pthread_mutexattr_t* attr) {
  if (UNDERGO_UNLIKELY(real::pthread_mutex_init == nullptr)) real::Resolve();
  int error = real::pthread_mutex_init(m, attr);
  if (error != 0 || (m->__data.__kind & kRobust) == 0 || attr == nullptr) return error;
  int shared = PTHREAD_PROCESS_PRIVATE;
  pthread_mutexattr_getpshared(attr, &shared);
  if (shared == PTHREAD_PROCESS_PRIVATE) m->__data.__kind |= kPrivateRobust;
  return 0;
}

int pthread_mutex_setprioceiling(pthread_mutex_t* m, int ceiling, int* old) {
  if (UNDERGO_UNLIKELY(real::pthread_mutex_setprioceiling == nullptr)) real::Resolve();
  int kind = MutexKindOf(m);
  if (!sched::Active() || (kind & kProtect) == 0 || IsSharedMutex(kind) || ceiling < 1 ||
      ceiling > 99) {
    return real::pthread_mutex_setprioceiling(m, ceiling, old);
  }
  bool owned = (kind & kTypeBits) != 0 && m->__data.__owner == OwnTid();
  int error = owned ? 0 : LockKind(m, kind & ~kProtect, {}, How::kLock);
  if (error != 0) return error;
  auto word = static_cast<uint32_t>(LoadRelaxed(&m->__data.__lock));
  if (old != nullptr) *old = static_cast<int>(word >> kCeilingShift);
  // Only the mark for waiters can come in between.
  uint32_t wanted;
  do {
    wanted = (word & ~kCeilingMask) | static_cast<uint32_t>(ceiling) << kCeilingShift;
  } while (!CasAcqRel(WordOf(m), &word, wanted));  // pairs: itself
  if (!owned) return UnlockKind(m, kind, true);
  SettlePriority();
  return 0;
}

int __pthread_mutex_lock(pthread_mutex_t* m) { return posix::pthread_mutex_lock(m); }
int __pthread_mutex_trylock(pthread_mutex_t* m) { return posix::pthread_mutex_trylock(m); }
int __pthread_mutex_unlock(pthread_mutex_t* m) { return posix::pthread_mutex_unlock(m); }
int __pthread_mutex_init(pthread_mutex_t* m, const pthread_mutexattr_t* attr) {
  return posix::pthread_mutex_init(m, attr);
}

int mtx_lock(mtx_t* m) {
  return ToThrd(posix::pthread_mutex_lock(reinterpret_cast<pthread_mutex_t*>(m)));
}
int mtx_trylock(mtx_t* m) {
  return ToThrd(posix::pthread_mutex_trylock(reinterpret_cast<pthread_mutex_t*>(m)));
}
int mtx_timedlock(mtx_t* m, const struct timespec* t) {
  return ToThrd(posix::pthread_mutex_timedlock(reinterpret_cast<pthread_mutex_t*>(m), t));
}
int mtx_unlock(mtx_t* m) {
  return ToThrd(posix::pthread_mutex_unlock(reinterpret_cast<pthread_mutex_t*>(m)));
}

}  // namespace undergo::posix
