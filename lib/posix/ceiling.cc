// SPDX-License-Identifier: Apache-2.0
// Only a thread with a real-time policy may lock such a mutex, and one has its kernel thread for
// itself (posix/attributes.cc). So the kernel is told each time. The held mutexes are linked by the
// field that libc uses for robust ones, which these cannot be.
#include "posix/ceiling.h"

#include <errno.h>
#include <sched.h>

#include "plat/syscall.h"
#include "sched/handoff.h"
#include "sched/sched.h"

namespace undergo::posix {

namespace {

using heap::ThreadWords;

pthread_mutex_t* NextOf(const pthread_mutex_t* m) {
  return reinterpret_cast<pthread_mutex_t*>(m->__data.__list.__next);
}
void SetNext(pthread_mutex_t* m, pthread_mutex_t* next) {
  m->__data.__list.__next = reinterpret_cast<__pthread_internal_list*>(next);
}

int CeilingOf(const pthread_mutex_t* m) {
  return static_cast<int>(static_cast<uint32_t>(LoadRelaxed(&m->__data.__lock)) >> kCeilingShift);
}

int Wanted(const ThreadWords& w, int base) {
  for (auto* m = static_cast<pthread_mutex_t*>(w.ceilings); m != nullptr; m = NextOf(m)) {
    base = Max(base, CeilingOf(m));
  }
  return base;
}

// The running thread's in the kernel; 0: it has no real-time policy.
int KernelPriority() {
  if (!sched::IsPinned()) return 0;
  long policy = plat::Syscall(__NR_sched_getscheduler, 0) & ~SCHED_RESET_ON_FORK;
  if (policy != SCHED_FIFO && policy != SCHED_RR) return 0;
  struct sched_param p = {};
  plat::Syscall(__NR_sched_getparam, 0, &p);
  return p.sched_priority;
}

int SetKernelPriority(int priority) {
  struct sched_param p = {};
  p.sched_priority = priority;
  long e = plat::Syscall(__NR_sched_setparam, 0, &p);
  return plat::IsError(e) ? static_cast<int>(-e) : 0;
}

}  // namespace

int RaiseTo(int ceiling) {
  ThreadWords& w = heap::thread_words;
  int now = KernelPriority();
  if (now == 0) return EINVAL;
  if (w.ceilings == nullptr) w.base_priority = now;
  if (w.base_priority > ceiling) return EINVAL;
  return ceiling > now ? SetKernelPriority(ceiling) : 0;
}

void HoldCeiling(pthread_mutex_t* m) {
  ThreadWords& w = heap::thread_words;
  SetNext(m, static_cast<pthread_mutex_t*>(w.ceilings));
  w.ceilings = m;
  if (CeilingOf(m) > KernelPriority()) SettlePriority();
}

bool DropCeiling(pthread_mutex_t* m) {
  ThreadWords& w = heap::thread_words;
  auto* at = static_cast<pthread_mutex_t*>(w.ceilings);
  if (at == m) {
    w.ceilings = NextOf(m);
  } else {
    while (at != nullptr && NextOf(at) != m) at = NextOf(at);
    if (at == nullptr) return false;  // locked by libc, before there were other threads
    SetNext(at, NextOf(m));
  }
  SetNext(m, nullptr);
  return true;
}

void SettlePriority() {
  ThreadWords& w = heap::thread_words;
  int now = KernelPriority();
  int wanted = Wanted(w, w.base_priority);
  if (now != 0 && wanted != now) SetKernelPriority(wanted);
}

bool BasePriority(const void* words, int* priority) {
  auto* w = static_cast<const ThreadWords*>(words);
  if (w->ceilings == nullptr) return false;
  *priority = w->base_priority;
  return true;
}

int SetBasePriority(void* words, int priority) {
  auto* w = static_cast<ThreadWords*>(words);
  if (w->ceilings == nullptr) return priority;
  w->base_priority = priority;
  return Wanted(*w, priority);
}

}  // namespace undergo::posix
