// SPDX-License-Identifier: Apache-2.0
// sem_*.
//
// glibc's sem_t is one word of 64 bits: the value below, the number of waiters above. Ours is the
// same: a post changes the value by itself as long as nobody waits; who waits is counted first,
// then looks at the value once more with the queue of the semaphore's address locked
// (sched/sema.h), and sleeps. A post that finds waiters gives its token to the first sleeper
// directly. Sleepers inside of libc (threads without a G) are in the number, too: when no sleeper
// of ours is there, the value grows and the kernel is asked to wake one.
//
// Rejected: to let the woken thread compete for the token, as libc does. A G that posts and waits
// in turn would starve its partner for a slice.
//
// sem_post may be called in handlers: while a thread holds the lock of a queue, handlers wait.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <semaphore.h>

#include "posix/blocking.h"
#include "posix/cancel_point.h"
#include "posix/deadline.h"
#include "posix/mutex.h"
#include "posix/posix.h"
#include "sched/sema.h"

namespace undergo::posix {

namespace {

using sched::Sleeper;
using sched::Visit;
using sched::Wake;

constexpr uint64_t kOneWaiter = uint64_t{1} << 32;
constexpr uint64_t kValueMask = kOneWaiter - 1;

struct Semaphore {  // glibc's new_sem
  uint64_t data;    // atomic
  int shared;       // 0: of this process alone
};
static_assert(sizeof(Semaphore) <= sizeof(sem_t));

Semaphore* Of(sem_t* s) { return reinterpret_cast<Semaphore*>(s); }
bool IsOurs(sem_t* s) { return sched::Active() && Of(s)->shared == 0; }

// Takes a token and `waiters` off the number of waiters. False when there is no token.
bool TryTake(Semaphore* s, uint64_t waiters) {
  uint64_t d = LoadRelaxed(&s->data);
  while ((d & kValueMask) != 0) {
    if (CasAcqRel(&s->data, &d, d - 1 - waiters)) return true;  // pairs: Post
  }
  return false;
}

// 0 or an error number.
UNDERGO_COLD int WaitFor(Semaphore* s, Until until) {
  uint64_t deadline = sched::kNever;
  if (until.t != nullptr) {
    int error = DeadlineOf(until.clock, until.t, &deadline);
    if (error != 0) return error;
  }
  for (;;) {
    Sleeper sleeper(sched::WaitReason::kSemaphore, s);
    Visit v(s);
    FetchAddAcqRel(&s->data, kOneWaiter);  // pairs: Post
    if (TryTake(s, kOneWaiter)) return 0;
    Wake why = v.Wait(&sleeper, deadline, true);
    FetchAddAcqRel(&s->data, ~uint64_t{0} << 32);  // pairs: Post
    if (why == Wake::kReady) return 0;
    if (why == Wake::kTimeout) return ETIMEDOUT;
    bool ends = AttendToInterrupt(until.t == nullptr ? Restart::kByFlag : Restart::kNever);
    TestCancel();
    if (ends) return EINTR;
    if (TryTake(s, 0)) return 0;
  }
}

int Wait(sem_t* s, Until until) {
  TestCancel();
  if (TryTake(Of(s), 0)) return 0;
  int error = WaitFor(Of(s), until);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

// False when the value is at its limit.
bool Add(Semaphore* s, bool alone, bool* done) {
  uint64_t d = LoadRelaxed(&s->data);
  *done = true;
  do {
    if (alone && d >= kOneWaiter) return *done = false, true;
    if ((d & kValueMask) == SEM_VALUE_MAX) return false;
  } while (!CasAcqRel(&s->data, &d, d + 1));  // pairs: TryTake
  return true;
}

UNDERGO_COLD bool PostToWaiter(Semaphore* s) {
  {
    Visit v(s);
    if (v.WakeOne()) return true;
    bool done;
    if (!Add(s, false, &done)) return false;
  }
  plat::Syscall(__NR_futex, s, FUTEX_WAKE_PRIVATE, 1);
  return true;
}

}  // namespace

int sem_wait(sem_t* s) {
  if (UNDERGO_LIKELY(IsOurs(s) && sched::Current() != nullptr)) return Wait(s, {});
  sched::SharedWait shared;
  return plain::sem_wait(s);
}

int sem_timedwait(sem_t* s, const struct timespec* t) {
  if (UNDERGO_LIKELY(IsOurs(s) && sched::Current() != nullptr)) {
    return Wait(s, {CLOCK_REALTIME, t});
  }
  sched::SharedWait shared;
  return plain::sem_timedwait(s, t);
}

int sem_clockwait(sem_t* s, clockid_t clock, const struct timespec* t) {
  if (UNDERGO_LIKELY(IsOurs(s) && sched::Current() != nullptr)) {
    if (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC) return Wait(s, {clock, t});
    errno = EINVAL;
    return -1;
  }
  sched::SharedWait shared;
  return plain::sem_clockwait(s, clock, t);
}

int sem_post(sem_t* s) {
  if (UNDERGO_UNLIKELY(!IsOurs(s))) {
    if (real::sem_post == nullptr) real::Resolve();
    return real::sem_post(s);
  }
  bool done;
  if (UNDERGO_LIKELY(Add(Of(s), true, &done)) && (done || PostToWaiter(Of(s)))) return 0;
  errno = EOVERFLOW;
  return -1;
}

}  // namespace undergo::posix
