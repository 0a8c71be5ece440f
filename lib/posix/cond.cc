// SPDX-License-Identifier: Apache-2.0
// pthread_cond_*, cnd_*.
//
// A condition is a queue at its address (sched/sema.h): the object itself is only read, for its
// clock and for whether processes share it. Who waits enters the queue, releases the mutex and
// sleeps, in one visit to the scheduler; who signals takes the first out, which runs next on this
// P. A signal to nobody costs one load. Orders as POSIX wants them follow from the mutex: who holds
// it sees the sleepers of those who released it.
//
// Who signals while it holds the mutex would wake a thread that can only wait again: it moves it to
// the queue of the mutex, and unlocking wakes it. A thread that was moved has had its signal, also
// when its deadline or a handler comes before the mutex.
//
// Threads without a G sleep in the same queue, on a futex of their own, where libc may cancel them
// as usual. Libc's wait is not for them: it releases the mutex inside of libc, which sees no
// sleeper of ours. What processes share is left to libc; if only the condition is shared, mutexes
// are waited for in the kernel from then on (ExpectWaitersInLibc).
//
// A handler that runs during the wait ends it: the program sees a spurious wake-up, which is
// allowed, and no signal is lost to a thread that is busy in its handler.
#include <errno.h>

#include "posix/blocking.h"
#include "posix/cancel_point.h"
#include "posix/deadline.h"
#include "posix/mutex.h"
#include "posix/posix.h"

namespace undergo::posix {

namespace {

using sched::Sleeper;
using sched::Visit;
using sched::Wake;

// Bits of glibc's pthread_cond_t::__wrefs; above them it counts its waiters.
constexpr unsigned kSharedCond = 1, kMonotonic = 2;
constexpr unsigned kOneWaiter = 8;

unsigned RefsOf(const pthread_cond_t* c) { return LoadRelaxed(&c->__data.__wrefs); }
bool WaitersInLibc(const pthread_cond_t* c) { return RefsOf(c) >= kOneWaiter; }

// Whether the wait is ours. Else libc does it.
bool IsOurs(const pthread_cond_t* c, pthread_mutex_t* m) {
  if (!sched::Active() || IsSharedMutex(MutexKindOf(m))) return false;
  if ((RefsOf(c) & kSharedCond) == 0) return true;
  ExpectWaitersInLibc(m);
  return false;
}

// A wait whose thread is cancelled.
struct Unwound {
  Sleeper* sleeper;
  pthread_cond_t* cond;
  pthread_mutex_t* mutex;
};

// The mutex is the caller's again; a signal goes to somebody else.
void OnUnwinding(void* context) {
  auto* u = static_cast<Unwound*>(context);
  bool woken = sched::Abandon(u->sleeper);
  bool moved = u->sleeper->key != u->cond;
  LockAfterWait(u->mutex, woken && moved, *u->sleeper);
  if (woken || moved) posix::pthread_cond_signal(u->cond);
}

// For a thread without a G.
UNDERGO_COLD Wake SleepInKernel(Visit* v, const Unwound& u, uint64_t deadline) {
  Unwound context = u;
  struct _pthread_cleanup_buffer cleanup;
  _pthread_cleanup_push(&cleanup, OnUnwinding, &context);
  u.sleeper->AllowCancel();
  Wake why = v->Sleep(u.sleeper, deadline, true);
  _pthread_cleanup_pop(&cleanup, 0);
  return why;
}

int WaitOn(pthread_cond_t* c, pthread_mutex_t* m, Until until) {
  uint64_t deadline = sched::kNever;
  if (until.t != nullptr) {
    int error = DeadlineOf(until.clock, until.t, &deadline);
    if (error != 0) return error;
  }
  TestCancel();
  if (int error = MayUnlock(m); error != 0) return error;
  Sleeper s(sched::WaitReason::kCond, c);
  s.then = m;
  s.detail = static_cast<uint32_t>(OwnTid());  // as the mutex's queue wants it
  Wake why;
  {
    Visit v(c);
    v.Queue(&s);
    UnlockForWait(m, &v);
    bool parks = UNDERGO_LIKELY(s.g() != nullptr);
    why = parks ? v.Sleep(&s, deadline, true) : SleepInKernel(&v, {&s, c, m}, deadline);
  }
  bool moved = s.key != c;
  if (UNDERGO_UNLIKELY(why == Wake::kInterrupted)) AttendToInterrupt();
  int error = LockAfterWait(m, moved && why == Wake::kReady, s);
  if (UNDERGO_UNLIKELY(why == Wake::kInterrupted) && !moved) TestCancel();
  if (error != 0) return error;
  return why == Wake::kTimeout && !moved ? ETIMEDOUT : 0;
}

// libc's wait for a mutex that processes share.
template <auto* kPlain, typename... A>
int WaitInLibc(pthread_cond_t* c, pthread_mutex_t* m, A... args) {
  KernelId id(sched::Active() && IsSharedMutex(MutexKindOf(m)) ? MutexKindOf(m) : 0);
  sched::SharedWait shared;
  return kPlain(c, m, args...);
}

int ToThrd(int error) {
  return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}

}  // namespace

int pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m) {
  if (UNDERGO_LIKELY(IsOurs(c, m))) return WaitOn(c, m, {});
  return WaitInLibc<plain::pthread_cond_wait>(c, m);
}

int pthread_cond_timedwait(pthread_cond_t* c, pthread_mutex_t* m, const struct timespec* t) {
  if (UNDERGO_LIKELY(IsOurs(c, m))) {
    bool monotonic = (RefsOf(c) & kMonotonic) != 0;
    return WaitOn(c, m, {monotonic ? CLOCK_MONOTONIC : CLOCK_REALTIME, t});
  }
  return WaitInLibc<plain::pthread_cond_timedwait>(c, m, t);
}

int pthread_cond_clockwait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t clock,
                           const struct timespec* t) {
  if (UNDERGO_LIKELY(IsOurs(c, m))) {
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) return EINVAL;
    return WaitOn(c, m, {clock, t});
  }
  return WaitInLibc<plain::pthread_cond_clockwait>(c, m, clock, t);
}

int pthread_cond_signal(pthread_cond_t* c) {
  if (UNDERGO_LIKELY(sched::Active() && (RefsOf(c) & kSharedCond) == 0)) {
    if (sched::MaySleep(c)) {
      Visit v(c);
      if (RequeueToMutex(&v, 1) || v.WakeOne()) return 0;
    }
    if (UNDERGO_LIKELY(!WaitersInLibc(c))) return 0;
  }
  if (UNDERGO_UNLIKELY(real::pthread_cond_signal == nullptr)) real::Resolve();
  return real::pthread_cond_signal(c);
}

int pthread_cond_broadcast(pthread_cond_t* c) {
  if (UNDERGO_LIKELY(sched::Active())) {
    if (sched::MaySleep(c)) {
      Visit v(c);
      RequeueToMutex(&v, ~uint32_t{0});
      v.WakeAll();
    }
    bool libc = (RefsOf(c) & kSharedCond) != 0 || WaitersInLibc(c);
    if (UNDERGO_LIKELY(!libc)) return 0;
  }
  if (UNDERGO_UNLIKELY(real::pthread_cond_broadcast == nullptr)) real::Resolve();
  return real::pthread_cond_broadcast(c);
}

int cnd_wait(cnd_t* c, mtx_t* m) {
  return ToThrd(posix::pthread_cond_wait(reinterpret_cast<pthread_cond_t*>(c),
                                         reinterpret_cast<pthread_mutex_t*>(m)));
}

int cnd_timedwait(cnd_t* c, mtx_t* m, const struct timespec* t) {
  return ToThrd(posix::pthread_cond_timedwait(reinterpret_cast<pthread_cond_t*>(c),
                                              reinterpret_cast<pthread_mutex_t*>(m), t));
}

int cnd_signal(cnd_t* c) {
  return ToThrd(posix::pthread_cond_signal(reinterpret_cast<pthread_cond_t*>(c)));
}

int cnd_broadcast(cnd_t* c) {
  return ToThrd(posix::pthread_cond_broadcast(reinterpret_cast<pthread_cond_t*>(c)));
}

}  // namespace undergo::posix
