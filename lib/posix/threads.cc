// SPDX-License-Identifier: Apache-2.0
// Threads of the program: created, joined, detached as Gs, or as kernel threads where the scheduler
// is off or the thread asks for what only a kernel thread has (its own CPUs, a real-time policy).
#include <errno.h>
#include <limits.h>
#include <sched.h>

#include "plat/clock.h"
#include "posix/deadline.h"
#include "posix/dump_signal.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/park.h"
#include "sched/stack.h"
#include "sched/thread.h"

namespace undergo::posix {

namespace {

using sched::G;

constinit size_t default_stack = 0;  // atomic; 0: ask libc

size_t DefaultStackSize() {
  size_t size = LoadRelaxed(&default_stack);
  if (size != 0) return size;
  pthread_attr_t attr;
  if (pthread_getattr_default_np(&attr) != 0) return 8 * kMiB;
  pthread_attr_getstacksize(&attr, &size);
  pthread_attr_destroy(&attr);
  StoreRelaxed(&default_stack, size);
  return size;
}

bool NarrowsCpus(const pthread_attr_t* attr) {
  cpu_set_t wanted, allowed;
  if (pthread_attr_getaffinity_np(attr, sizeof wanted, &wanted) != 0) return true;
  if (CPU_COUNT(&wanted) == CPU_SETSIZE) return false;  // the attribute has no set of its own
  if (plat::IsError(plat::Syscall(__NR_sched_getaffinity, 0, sizeof allowed, &allowed))) {
    return false;
  }
  CPU_AND(&wanted, &wanted, &allowed);
  return !CPU_EQUAL(&wanted, &allowed);
}

// False: this must be a kernel thread.
bool Translate(const pthread_attr_t* attr, sched::ThreadRequest* r) {
  r->guard_size = kOsPageSize;
  if (attr == nullptr) {
    r->stack_size = DefaultStackSize();
    return true;
  }
  int detach = 0, inherit = PTHREAD_INHERIT_SCHED, policy = SCHED_OTHER;
  pthread_attr_getdetachstate(attr, &detach);
  pthread_attr_getinheritsched(attr, &inherit);
  r->detached = detach == PTHREAD_CREATE_DETACHED;
  if (inherit == PTHREAD_EXPLICIT_SCHED) {
    pthread_attr_getschedpolicy(attr, &policy);
    if (policy != SCHED_OTHER) return false;
  }
  if (NarrowsCpus(attr)) return false;
  void* stack = nullptr;
  pthread_attr_getstack(attr, &stack, &r->stack_size);
  pthread_attr_getguardsize(attr, &r->guard_size);
  sigset_t mask;
  r->has_mask = pthread_attr_getsigmask_np(attr, &mask) == 0;
  if (r->has_mask) __builtin_memcpy(&r->mask, &mask, sizeof r->mask);
  r->guard_size = AlignUp(r->guard_size, kOsPageSize);
  r->stack = reinterpret_cast<Addr>(stack);
  // Without a stack of its own glibc shows the end of none: no size, or an address below 0.
  if (r->stack + r->stack_size == 0 || stack == nullptr) r->stack = 0;
  if (r->stack_size == 0) r->stack_size = DefaultStackSize();
  return true;
}

// What a pinned thread has of its own, its threads inherit.
bool InheritsKernelState() { return sched::Self() != nullptr && sched::IsPinned(); }

int JoinG(G* g, void** result, uint64_t deadline, bool try_only) {
  for (;;) {
    if (!try_only) pthread_testcancel();
    int error = sched::Join(g, result, deadline, try_only);
    if (error != EINTR) return error;
    AttendToInterrupt();
  }
}

}  // namespace

int pthread_create(pthread_t* thread, const pthread_attr_t* attr, void* (*routine)(void*),
                   void* arg) {
  if (real::pthread_create == nullptr) real::Resolve();
  WatchDumpSignal();
  if (sched::Configured()) WatchOverflows();
  sched::ThreadRequest r = {};
  if (!sched::StartScheduler() || InheritsKernelState() || !Translate(attr, &r)) {
    return CreateKernelThread(thread, attr, routine, arg);
  }
  r.start = routine;
  r.arg = arg;
  int saved = errno;
  int error = sched::CreateThread(thread, r);
  errno = saved;
  return error;
}

int thrd_create(thrd_t* thread, thrd_start_t routine, void* arg) {
  if (real::thrd_create == nullptr) real::Resolve();
  WatchDumpSignal();
  if (sched::Configured()) WatchOverflows();
  sched::ThreadRequest r = {};
  if (!sched::StartScheduler() || InheritsKernelState() || !Translate(nullptr, &r)) {
    return CreateKernelThread(thread, routine, arg);
  }
  r.start = reinterpret_cast<void* (*)(void*)>(reinterpret_cast<void*>(routine));
  r.arg = arg;
  r.c11 = true;
  int error = sched::CreateThread(thread, r);
  return error == 0 ? thrd_success : error == EAGAIN ? thrd_nomem : thrd_error;
}

int pthread_join(pthread_t thread, void** result) {
  if (real::pthread_join == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g != nullptr) return JoinG(g, result, sched::kNever, false);
  G* self = sched::EnterLongCall();
  int error = real::pthread_join(thread, result);
  sched::ExitCall(self);
  return error;
}

int pthread_tryjoin_np(pthread_t thread, void** result) {
  if (real::pthread_tryjoin_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  return g != nullptr ? JoinG(g, result, sched::kNever, true)
                      : real::pthread_tryjoin_np(thread, result);
}

int pthread_clockjoin_np(pthread_t thread, void** result, clockid_t clock,
                         const struct timespec* t) {
  if (real::pthread_clockjoin_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g != nullptr) {
    uint64_t deadline = sched::kNever;
    if (t != nullptr) {
      if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC) return EINVAL;
      int error = DeadlineOf(clock, t, &deadline);
      if (error != 0) return error;
    }
    return JoinG(g, result, deadline, false);
  }
  G* self = sched::EnterLongCall();
  int error = real::pthread_clockjoin_np(thread, result, clock, t);
  sched::ExitCall(self);
  return error;
}

int pthread_timedjoin_np(pthread_t thread, void** result, const struct timespec* t) {
  if (real::pthread_timedjoin_np == nullptr) real::Resolve();
  if (sched::Find(thread) != nullptr) {
    return posix::pthread_clockjoin_np(thread, result, CLOCK_REALTIME, t);
  }
  G* self = sched::EnterLongCall();
  int error = real::pthread_timedjoin_np(thread, result, t);
  sched::ExitCall(self);
  return error;
}

int pthread_detach(pthread_t thread) {
  if (real::pthread_detach == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  return g != nullptr ? sched::Detach(g) : real::pthread_detach(thread);
}

int thrd_join(thrd_t thread, int* result) {
  if (real::thrd_join == nullptr) real::Resolve();
  void* value = nullptr;
  int error = posix::pthread_join(thread, &value);
  if (error == 0 && result != nullptr) *result = static_cast<int>(reinterpret_cast<Addr>(value));
  return error == 0 ? thrd_success : thrd_error;
}

int thrd_detach(thrd_t thread) {
  return posix::pthread_detach(thread) == 0 ? thrd_success : thrd_error;
}

int pthread_getattr_np(pthread_t thread, pthread_attr_t* attr) {
  if (real::pthread_getattr_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) return real::pthread_getattr_np(thread, attr);
  if (g->main) {
    // glibc asks the kernel about the id in the thread's block, which is the process's.
    return real::pthread_getattr_np(thread, attr);
  }
  int error = pthread_attr_init(attr);
  if (error != 0) return error;
  pthread_attr_setstack(attr, reinterpret_cast<void*>(g->stack_low), g->stack_size);
  pthread_attr_setguardsize(attr, g->guard_size);
  pthread_attr_setdetachstate(attr,
                              g->detached == 1 ? PTHREAD_CREATE_DETACHED : PTHREAD_CREATE_JOINABLE);
  struct sched_param priority = {};
  priority.sched_priority = g->priority;
  pthread_attr_setschedpolicy(attr, g->policy);
  pthread_attr_setschedparam(attr, &priority);
  return 0;
}

int pthread_setattr_default_np(const pthread_attr_t* attr) {
  if (real::pthread_setattr_default_np == nullptr) real::Resolve();
  int error = real::pthread_setattr_default_np(attr);
  StoreRelaxed(&default_stack, size_t{0});
  return error;
}

int sched_yield() {
  if (real::sched_yield == nullptr) real::Resolve();
  return sched::Yield() ? 0 : real::sched_yield();
}

void thrd_yield() { posix::sched_yield(); }

}  // namespace undergo::posix
