// SPDX-License-Identifier: Apache-2.0
// pthread_barrier_wait, pthread_spin_lock, pthread_once, call_once.
//
// A barrier keeps glibc's counts (entries and exits since it was made or since they were reset), so
// that libc's functions can make and destroy it; its threads sleep in the queue of its address.
//
// Who spins for a lock whose holder does not run would spin for ever on the holder's P: after some
// tries others run first.
//
// The initialiser of a pthread_once runs inside of libc's function, which knows what to do when it
// is cancelled or throws. Others sleep in a queue of ours; who slept long asks libc, which blocks
// the kernel thread but also knows about initialisers that were abandoned or that a fork cut off.
#include <errno.h>
#include <pthread.h>

#include "plat/clock.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/sched.h"
#include "sched/sema.h"

namespace undergo::posix {

namespace {

using sched::Sleeper;
using sched::Visit;
using sched::Wake;

struct Barrier {   // glibc's pthread_barrier
  unsigned in;     // entries; lock of the queue, as all but the constants
  unsigned round;  // entries at the beginning of the round
  unsigned count;  // constant
  int shared;      // constant; 0: of this process alone
  unsigned out;    // exits
};
static_assert(sizeof(Barrier) <= sizeof(pthread_barrier_t));

constexpr unsigned kReset = 1u << 30;

int WaitAt(Barrier* b) {
  unsigned round;
  {
    Sleeper s(sched::WaitReason::kBarrier, b);
    Visit v(b);
    round = b->round;
    if (++b->in - round == b->count) {
      b->out += b->count;
      // Before the counts come near the end of their range.
      if (b->in >= kReset) b->in = b->out = 0;
      b->round = b->in;
      v.WakeAll();
      return PTHREAD_BARRIER_SERIAL_THREAD;
    }
    if (v.Wait(&s, sched::kNever, true) == Wake::kReady) return 0;
  }
  // Interrupted: it stays counted.
  for (;;) {
    AttendToInterrupt();
    Sleeper s(sched::WaitReason::kBarrier, b);
    Visit v(b);
    if (b->round != round) return 0;
    if (v.Wait(&s, sched::kNever, true) == Wake::kReady) return 0;
  }
}

// glibc's lock is 1 when free, and less when not.
bool TrySpin(pthread_spinlock_t* lock) {
  auto* word = const_cast<int*>(lock);
  return LoadRelaxed(word) > 0 && ExchangeAcqRel(word, 0) > 0;  // pairs: pthread_spin_unlock
}

constexpr int kDone = 2;                    // of a pthread_once_t
constexpr uint64_t kPatience = 10'000'000;  // ns

// Somebody runs the initialiser. True: it is worth a look.
bool SleepForOnce(pthread_once_t* once, int seen) {
  Sleeper s(sched::WaitReason::kOnce, once);
  Visit v(once);
  if (LoadAcquire(once) != seen) return true;  // pairs: libc
  Wake why = v.Wait(&s, plat::NowNs() + kPatience, true);
  if (why == Wake::kInterrupted) AttendToInterrupt();
  return why != Wake::kTimeout;
}

UNDERGO_COLD int OnceSlow(pthread_once_t* once, void (*init)()) {
  for (;;) {
    int seen = LoadAcquire(once);  // pairs: libc
    if ((seen & kDone) != 0) return 0;
    if (seen == 0 || sched::Current() == nullptr || !SleepForOnce(once, seen)) break;
  }
  int error = real::pthread_once(once, init);
  if (sched::Active()) {
    Visit v(once);
    v.WakeAll();
  }
  return error;
}

}  // namespace

int pthread_barrier_wait(pthread_barrier_t* barrier) {
  auto* b = reinterpret_cast<Barrier*>(barrier);
  if (UNDERGO_LIKELY(sched::Active() && b->shared == 0)) return WaitAt(b);
  if (real::pthread_barrier_wait == nullptr) real::Resolve();
  sched::SharedWait shared;
  sched::G* g = sched::EnterCall();
  int result = real::pthread_barrier_wait(barrier);
  sched::ExitCall(g);
  return result;
}

int pthread_spin_lock(pthread_spinlock_t* lock) {
  if (UNDERGO_UNLIKELY(!sched::Active())) {
    if (real::pthread_spin_lock == nullptr) real::Resolve();
    return real::pthread_spin_lock(lock);
  }
  constexpr uint32_t kPauses = 100, kTries = 10;
  for (uint32_t i = 1; !TrySpin(lock); ++i) {
    if (i % kTries == 0 || !sched::OthersRun()) {
      if (!sched::Yield()) plat::Syscall(__NR_sched_yield);
      continue;
    }
    for (uint32_t k = 0; k < kPauses; ++k) CpuRelax();
  }
  return 0;
}

int pthread_once(pthread_once_t* once, void (*init)()) {
  if (UNDERGO_LIKELY((LoadAcquire(once) & kDone) != 0)) return 0;  // pairs: libc
  if (UNDERGO_UNLIKELY(real::pthread_once == nullptr)) real::Resolve();
  return sched::Active() ? OnceSlow(once, init) : real::pthread_once(once, init);
}

int __pthread_once(pthread_once_t* once, void (*init)()) { return posix::pthread_once(once, init); }

void call_once(once_flag* flag, void (*init)()) {
  posix::pthread_once(reinterpret_cast<pthread_once_t*>(flag), init);
}

}  // namespace undergo::posix
