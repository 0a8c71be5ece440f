// SPDX-License-Identifier: Apache-2.0
// Threads of all kinds for the tests of world/.
#pragma once

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "base/atomic.h"
#include "check.h"
#include "heap/thread_words.h"
#include "plat/thread.h"
#include "world/blocked_call.h"
#include "world/stop.h"
#include "world/world.h"

namespace undergo::world::test {

constexpr uint64_t kBudget = 5'000'000'000;

inline void Begin() {
  EnablePublishing();
  StartTracking();
}

inline int Tid() { return static_cast<int>(syscall(SYS_gettid)); }

// A bounded stack that is known, as the pthread_create wrapper makes it known.
inline void Announce() {
  pthread_attr_t attr;
  void* low;
  size_t size;
  cr_assert(pthread_getattr_np(pthread_self(), &attr) == 0);
  cr_assert(pthread_attr_getstack(&attr, &low, &size) == 0);
  pthread_attr_destroy(&attr);
  ThreadStarted(reinterpret_cast<Addr>(low), reinterpret_cast<Addr>(low) + size);
}

// What a thread is doing, and how often.
struct Worker {
  uint32_t quit;   // set by the test
  uint32_t alive;  // set by the thread when it has begun
  int tid;
  uint64_t count;  // grows while the thread runs
  uint64_t trouble;
};

inline void AwaitAlive(Worker* w) {
  for (int i = 0; LoadAcquire(&w->alive) == 0; ++i) {
    CHECK_MSG(i < 10000, "a thread does not begin");
    SleepMs(1);
  }
}

inline bool Quit(Worker* w) { return LoadAcquire(&w->quit) != 0; }
inline void Begun(Worker* w) {
  w->tid = Tid();
  StoreRelease(&w->alive, 1);
}

struct Seen {
  int tid;
  bool found;
  StoppedThread thread;
};
// While the world is stopped the test framework's own threads are: a failure must end the process.
inline StoppedThread StoppedByTid(int tid) {
  Seen seen = {tid, false, {}};
  ForEachStopped([&](const StoppedThread& t) {
    if (t.tid != seen.tid) return;
    CHECK_MSG(!seen.found, "thread %d twice", t.tid);
    seen.found = true;
    seen.thread = t;
  });
  CHECK_MSG(seen.found, "thread %d is not among the stopped", tid);
  return seen.thread;
}

inline void Stop() {
  StopResult r = StopTheWorld(kBudget);
  CHECK_MSG(r == StopResult::kStopped, "gave up");
  CHECK(IsStopped());
}

}  // namespace undergo::world::test
