// SPDX-License-Identifier: Apache-2.0
// pthread_rwlock_*.
//
// The state is glibc's `__readers` in the forms that it has without waiters: the number of readers
// from bit 3 on, bit 1 while a writer has the lock, bit 0 with it (alone: free, and a writer was
// last). Bit 2 says that threads sleep in the queue of the lock's address (sched/sema.h). So locks
// that were taken before the scheduler ran, or that a forked child goes on with, are understood.
//
// While bit 2 is set, who releases the lock hands it over with the queue locked: to all sleeping
// readers at once, or to a writer. A lock that prefers writers (the NONRECURSIVE kind) goes to
// writers first, and lets no reader in while somebody sleeps; for the others readers come first
// after a writer, and a writer after the last reader, as in glibc.
#include <errno.h>
#include <pthread.h>

#include "posix/deadline.h"
#include "posix/mutex.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/sema.h"

namespace undergo::posix {

namespace {

using sched::Sleeper;
using sched::Visit;
using sched::Wake;

constexpr uint32_t kWritePhase = 1, kWriter = 2, kSleepers = 4, kReader = 8;
constexpr uint64_t kWantsRead = 1, kWantsWrite = 2;  // details of sleepers

uint32_t* StateOf(pthread_rwlock_t* l) { return &l->__data.__readers; }
bool PrefersWriters(const pthread_rwlock_t* l) {
  return l->__data.__flags == PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
}
bool IsShared(const pthread_rwlock_t* l) { return l->__data.__shared != 0; }
bool OwnsWrite(const pthread_rwlock_t* l) {
  return LoadRelaxed(&l->__data.__cur_writer) == OwnTid();
}

bool TryRead(pthread_rwlock_t* l, bool past_sleepers) {
  uint32_t s = LoadRelaxed(StateOf(l));
  for (;;) {
    if ((s & kWriter) != 0) return false;
    if ((s & kSleepers) != 0 && !past_sleepers && PrefersWriters(l)) return false;
    uint32_t wanted = (s & ~kWritePhase) + kReader;
    if (CasAcqRel(StateOf(l), &s, wanted)) return true;  // pairs: the unlocks
  }
}

bool TryWrite(pthread_rwlock_t* l) {
  uint32_t s = LoadRelaxed(StateOf(l));
  for (;;) {
    if ((s & kWriter) != 0 || s >= kReader) return false;
    uint32_t wanted = (s & kSleepers) | kWriter | kWritePhase;
    if (CasAcqRel(StateOf(l), &s, wanted)) break;  // pairs: the unlocks
  }
  StoreRelaxed(&l->__data.__cur_writer, OwnTid());
  return true;
}

UNDERGO_COLD int WaitFor(pthread_rwlock_t* l, uint64_t what, Until until) {
  if (OwnsWrite(l)) return EDEADLK;
  uint64_t deadline = sched::kNever;
  if (until.t != nullptr) {
    int error = DeadlineOf(until.clock, until.t, &deadline);
    if (error != 0) return error;
  }
  Sleeper sleeper(sched::WaitReason::kRwlock, l);
  sleeper.detail = what;
  for (;;) {
    Visit v(l);
    uint32_t* state = StateOf(l);
    for (;;) {
      bool taken = what == kWantsRead ? TryRead(l, v.Empty()) : TryWrite(l);
      if (taken) return 0;
      uint32_t s = LoadRelaxed(state);
      // Nobody leaves without a look at the queue once this is set.
      if (s < kReader && (s & kWriter) == 0) continue;
      if ((s & kSleepers) != 0 || CasAcqRel(state, &s, s | kSleepers)) break;  // pairs: unlocks
    }
    Wake why = v.Wait(&sleeper, deadline, true);
    if (why == Wake::kTimeout) return ETIMEDOUT;
    if (why == Wake::kReady) {
      if (what == kWantsWrite) StoreRelaxed(&l->__data.__cur_writer, OwnTid());
      return 0;
    }
    AttendToInterrupt();
  }
}

// The state says that a writer has the lock, and that threads sleep; the queue is locked. It is
// free for whoever comes next.
void HandOver(pthread_rwlock_t* l, Visit* v, bool writers_first) {
  uint32_t readers = 0;
  bool writer = false;
  if (!writers_first) readers = v->WakeMany(~uint32_t{0}, kWantsRead);
  if (readers == 0) writer = v->WakeMany(1, kWantsWrite) != 0;
  if (readers == 0 && !writer) readers = v->WakeMany(~uint32_t{0}, kWantsRead);
  uint32_t next = writer ? kWriter | kWritePhase : readers * kReader;
  if (!v->Empty()) next |= kSleepers;
  StoreRelease(StateOf(l), next);  // pairs: TryRead, TryWrite
}

void UnlockWrite(pthread_rwlock_t* l) {
  StoreRelaxed(&l->__data.__cur_writer, 0);
  uint32_t s = kWriter | kWritePhase;
  if (UNDERGO_LIKELY(CasAcqRel(StateOf(l), &s, 0u))) return;  // pairs: TryRead, TryWrite
  Visit v(l);
  HandOver(l, &v, PrefersWriters(l));
}

void UnlockRead(pthread_rwlock_t* l) {
  uint32_t* state = StateOf(l);
  uint32_t s = LoadRelaxed(state);
  while ((s & kSleepers) == 0) {
    if (CasAcqRel(state, &s, s - kReader)) return;  // pairs: TryWrite
  }
  Visit v(l);
  s = LoadRelaxed(state);
  for (;;) {
    bool last = s < 2 * kReader;
    uint32_t wanted = last ? kWriter | kWritePhase | kSleepers : s - kReader;
    if (!CasAcqRel(state, &s, wanted)) continue;  // pairs: TryWrite
    if (last) HandOver(l, &v, true);
    return;
  }
}

// Libc's function, for a lock that processes share.
template <typename F>
UNDERGO_COLD int InLibc(F lock) {
  sched::SharedWait shared;
  sched::G* g = sched::EnterCall();
  int error = lock();
  sched::ExitCall(g);
  return error;
}

int Read(pthread_rwlock_t* l, Until until) {
  return UNDERGO_LIKELY(TryRead(l, false)) ? 0 : WaitFor(l, kWantsRead, until);
}
int Write(pthread_rwlock_t* l, Until until) {
  return UNDERGO_LIKELY(TryWrite(l)) ? 0 : WaitFor(l, kWantsWrite, until);
}

bool IsClock(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC; }

}  // namespace

#define UNDERGO_LIBC(name, ...)                             \
  if (UNDERGO_UNLIKELY(!sched::Active() || IsShared(l))) {  \
    if (real::name == nullptr) real::Resolve();             \
    if (!sched::Active()) return real::name(__VA_ARGS__);   \
    return InLibc([=] { return real::name(__VA_ARGS__); }); \
  }

int pthread_rwlock_rdlock(pthread_rwlock_t* l) {
  UNDERGO_LIBC(pthread_rwlock_rdlock, l)
  return Read(l, {});
}

int pthread_rwlock_wrlock(pthread_rwlock_t* l) {
  UNDERGO_LIBC(pthread_rwlock_wrlock, l)
  return Write(l, {});
}

int pthread_rwlock_tryrdlock(pthread_rwlock_t* l) {
  UNDERGO_LIBC(pthread_rwlock_tryrdlock, l)
  return TryRead(l, false) ? 0 : EBUSY;
}

int pthread_rwlock_trywrlock(pthread_rwlock_t* l) {
  UNDERGO_LIBC(pthread_rwlock_trywrlock, l)
  return TryWrite(l) ? 0 : EBUSY;
}

int pthread_rwlock_timedrdlock(pthread_rwlock_t* l, const struct timespec* t) {
  UNDERGO_LIBC(pthread_rwlock_timedrdlock, l, t)
  return IsValid(t) ? Read(l, {CLOCK_REALTIME, t}) : EINVAL;
}

int pthread_rwlock_timedwrlock(pthread_rwlock_t* l, const struct timespec* t) {
  UNDERGO_LIBC(pthread_rwlock_timedwrlock, l, t)
  return IsValid(t) ? Write(l, {CLOCK_REALTIME, t}) : EINVAL;
}

int pthread_rwlock_clockrdlock(pthread_rwlock_t* l, clockid_t clock, const struct timespec* t) {
  UNDERGO_LIBC(pthread_rwlock_clockrdlock, l, clock, t)
  return IsClock(clock) && IsValid(t) ? Read(l, {clock, t}) : EINVAL;
}

int pthread_rwlock_clockwrlock(pthread_rwlock_t* l, clockid_t clock, const struct timespec* t) {
  UNDERGO_LIBC(pthread_rwlock_clockwrlock, l, clock, t)
  return IsClock(clock) && IsValid(t) ? Write(l, {clock, t}) : EINVAL;
}

int pthread_rwlock_unlock(pthread_rwlock_t* l) {
  UNDERGO_LIBC(pthread_rwlock_unlock, l)
  OwnsWrite(l) ? UnlockWrite(l) : UnlockRead(l);
  return 0;
}

int __pthread_rwlock_rdlock(pthread_rwlock_t* l) { return posix::pthread_rwlock_rdlock(l); }
int __pthread_rwlock_wrlock(pthread_rwlock_t* l) { return posix::pthread_rwlock_wrlock(l); }
int __pthread_rwlock_tryrdlock(pthread_rwlock_t* l) { return posix::pthread_rwlock_tryrdlock(l); }
int __pthread_rwlock_trywrlock(pthread_rwlock_t* l) { return posix::pthread_rwlock_trywrlock(l); }
int __pthread_rwlock_unlock(pthread_rwlock_t* l) { return posix::pthread_rwlock_unlock(l); }

}  // namespace undergo::posix
