// SPDX-License-Identifier: Apache-2.0
// Process-wide events that the heap must know: fork, thread exit, limits and locks of the address
// space.
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "gc/collector.h"
#include "heap/mcache.h"
#include "heap/mheap.h"
#include "heap/registry.h"
#include "plat/real.h"
#include "posix/descriptor.h"
#include "posix/posix.h"
#include "sched/fork.h"
#include "sched/quiesce.h"
#include "world/record.h"
#include "world/world.h"

namespace undergo::posix {

namespace {

constinit pthread_key_t exit_key = 0;

// Destructors of other keys may still allocate and free: glibc runs them in rounds, so this one
// comes back until the last round. The value counts the rounds.
void OnThreadExit(void* value) {
  auto round = reinterpret_cast<uintptr_t>(value);
  if (round < PTHREAD_DESTRUCTOR_ITERATIONS) {
    pthread_setspecific(exit_key, reinterpret_cast<void*>(round + 1));
    return;
  }
  if (heap::thread_words.self != nullptr) return;  // of main, before it became a G
  heap::DetachThread();
  world::ThreadEnded();
}

// Gs share the mcaches of their Ms.
void OnThreadAttached() {
  if (heap::thread_words.self != nullptr) return;
  pthread_setspecific(exit_key, reinterpret_cast<void*>(1));
}

void BeforeFork() {
  sched::NoteFork();
  sched::EndManyIdleMs();
  if (sched::Active()) SocketOptionsUnknown();
  heap::LockAllForFork();
}

void InForkedChild() {
  sched::AfterForkInChild();
  world::AfterForkInChild();
  gc::AfterForkInChild();
  heap::ResetAllInChild();
}

void ReleaseReservation() {
  heap::BusyScope busy;
  heap::mheap.ReleaseReservation();
}

template <typename Limit>
void BeforeLimit(int what, const Limit* limit) {
  if (what != RLIMIT_AS || limit == nullptr) return;
  if (limit->rlim_cur == static_cast<decltype(limit->rlim_cur)>(RLIM_INFINITY)) return;
  ReleaseReservation();
}

}  // namespace

void InstallForkHandlers() {
  int error = pthread_atfork(BeforeFork, heap::UnlockAllInParent, InForkedChild);
  UNDERGO_CHECK(error == 0);
}

void InstallThreadExitHook() {
  // Without a key threads keep their mcache for ever; the program still runs right.
  if (pthread_key_create(&exit_key, OnThreadExit) == 0) {
    heap::on_thread_attached = OnThreadAttached;
    world::on_thread_adopted = OnThreadAttached;
  }
}

void WatchThreadExit() {
  if (heap::on_thread_attached != nullptr) OnThreadAttached();
}

// Runs no fork handlers. It may be called in a signal handler, which may have interrupted who holds
// the locks.
pid_t _Fork() {
  if (real::_Fork == nullptr) real::Resolve();
  heap::ThreadWords& words = heap::thread_words;
  bool lock = words.busy == 0;
  if (lock) {
    BeforeFork();
  } else {
    words.busy++;
    words.in_mheap++;
  }
  pid_t pid = real::_Fork();
  if (pid == 0) {
    InForkedChild();
  } else if (lock) {
    heap::UnlockAllInParent();
  } else {
    words.in_mheap--;
    heap::EndBusy();
  }
  return pid;
}

int setrlimit(__rlimit_resource_t what, const struct rlimit* limit) {
  if (real::setrlimit == nullptr) real::Resolve();
  BeforeLimit(what, limit);
  return real::setrlimit(what, limit);
}

int setrlimit64(__rlimit_resource_t what, const struct rlimit64* limit) {
  if (real::setrlimit64 == nullptr) real::Resolve();
  BeforeLimit(what, limit);
  return real::setrlimit64(what, limit);
}

int prlimit(pid_t pid, enum __rlimit_resource what, const struct rlimit* limit,
            struct rlimit* old) {
  if (real::prlimit == nullptr) real::Resolve();
  if (pid == 0) BeforeLimit(what, limit);
  return real::prlimit(pid, what, limit, old);
}

int prlimit64(pid_t pid, enum __rlimit_resource what, const struct rlimit64* limit,
              struct rlimit64* old) {
  if (real::prlimit64 == nullptr) real::Resolve();
  if (pid == 0) BeforeLimit(what, limit);
  return real::prlimit64(pid, what, limit, old);
}

// The whole address space counts against RLIMIT_MEMLOCK, and all that can be read is filled.
int mlockall(int flags) {
  if (real::mlockall == nullptr) real::Resolve();
  if ((flags & MCL_CURRENT) != 0) ReleaseReservation();
  return real::mlockall(flags);
}

}  // namespace undergo::posix
