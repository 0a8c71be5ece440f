// SPDX-License-Identifier: Apache-2.0
// Mutexes of the program, for those who lock one inside of something else: condition variables.
#pragma once

#include <pthread.h>
#include <time.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "sched/sema.h"

namespace undergo::posix {

// Until when to wait, as the program said it: t null is for ever.
struct Until {
  clockid_t clock = CLOCK_REALTIME;
  const struct timespec* t = nullptr;
};

// Bits of glibc's pthread_mutex_t::__kind.
enum MutexKind : int {
  kTypeBits = 3,  // PTHREAD_MUTEX_NORMAL, RECURSIVE, ERRORCHECK, ADAPTIVE_NP
  kRobust = 16,
  kInherit = 32,
  kProtect = 64,
  kShared = 128,  // also set for all robust ones
  kElision = 256,
  kNoElision = 512,
  // Ours: robust, but used by this process alone. libc looks at the bits above only.
  kPrivateRobust = 1 << 16,
};

inline int MutexKindOf(const pthread_mutex_t* m) {
  return LoadRelaxed(&m->__data.__kind) & ~(kElision | kNoElision);
}
// Other processes may use it: only libc's own functions can then.
inline bool IsSharedMutex(int kind) { return (kind & (kShared | kPrivateRobust)) == kShared; }

// What glibc's functions take for the running thread's id.
inline int OwnTid() {
  int tid;
  asm("movl %%fs:720, %0" : "=r"(tid));
  return tid;
}

// pthread_mutex_unlock and lock inside of a wait for a condition, for mutexes that are not shared:
// the number of users stays, so that nobody destroys the mutex. MayUnlock first: 0 or EPERM.
int MayUnlock(const pthread_mutex_t* m);
// `v` has released the queue that it visited, and goes on with the mutex's if need be.
void UnlockForWait(pthread_mutex_t* m, sched::Visit* v);
// `from_queue`: an unlocker of m woke s.
int LockAfterWait(pthread_mutex_t* m, bool from_queue, const sched::Sleeper& s);
// The caller holds the mutex m, for which the first n sleepers in v's queue wait when they are
// woken: they go to the queue of m, whose unlocker wakes them. False: it is not so, or cannot be
// done.
bool RequeueToMutex(sched::Visit* v, uint32_t n);

// Around calls of libc's functions for mutexes that processes share. If the kernel looks at the
// owner of this kind, they see the kernel's id of the thread, which keeps its kernel thread for
// good.
class KernelId {
 public:
  explicit KernelId(int kind);
  ~KernelId();
  KernelId(const KernelId&) = delete;
  KernelId& operator=(const KernelId&) = delete;

 private:
  int* field_;
  int shown_ = 0;
};

// The caller holds m, which is not shared, and lets libc release it in a wait for a condition that
// is. From now on threads wait for mutexes in the kernel, where libc finds them.
void ExpectWaitersInLibc(pthread_mutex_t* m);

}  // namespace undergo::posix
