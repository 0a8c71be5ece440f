// SPDX-License-Identifier: Apache-2.0
// When are all threads asleep for good?
//
// Go knows: its goroutines wait for each other only. Here a signal handler, a timer, a thread that
// libc made for itself, or another process in the same memory may post a semaphore. A wrong note
// would be worse than none, so it is given only when
//  * each thread waits, without a deadline, for a mutex, a condition, a semaphore, a lock, a
//  barrier
//    or another thread's end, all of them private to the process. Whoever is in a call of the
//    kernel (sigwait, pause, waitpid, objects shared with other processes), is pinned, or waits for
//    a descriptor or a futex of its own making, may be woken from outside;
//  * there is no kernel thread but the scheduler's and the library's own;
//  * the program handles no signal that may come from outside, and no timer or alarm of its runs;
//  * no process shares the memory.
//
// sysmon asks when all Ps have been idle for a second. What is read is not read at one moment;
// searches for work are counted, and when there was one meanwhile nothing is said.
// Source: Go's checkdead in runtime/proc.go, for the idea.
#include "diag/deadlock.h"

#include <signal.h>
#include <sys/time.h>

#include "diag/dump.h"
#include "plat/proc_file.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "posix/dump_signal.h"
#include "sched/netpoll.h"
#include "sched/sched.h"
#include "sched/sysmon.h"
#include "sched/thread.h"
#include "world/foreign.h"

namespace undergo::diag {

namespace {

constinit bool aborts = false;
constinit bool told = false;  // sysmon

constexpr uint64_t Bit(int sig) { return uint64_t{1} << (sig - 1); }
// Faults come from instructions, and the two that libc keeps for itself from it.
constexpr uint64_t kHarmless = Bit(SIGSEGV) | Bit(SIGBUS) | Bit(SIGFPE) | Bit(SIGILL) |
                               Bit(SIGTRAP) | Bit(SIGABRT) | Bit(SIGSYS) | Bit(32) | Bit(33);

bool WaitsForGood(const sched::G* g) {
  using sched::WaitReason;
  if (g->state != sched::GState::kWaiting || LoadAcquire(&g->on_cpu) != 0) return false;
  switch (g->why) {
    case WaitReason::kMutex:
    case WaitReason::kCond:
    case WaitReason::kSemaphore:
    case WaitReason::kRwlock:
    case WaitReason::kBarrier:
    case WaitReason::kOnce:
    case WaitReason::kJoin: break;
    default: return false;
  }
  return g->timer.index == 0 && LoadRelaxed(&g->interrupts) == 0 &&
         LoadRelaxed(&g->wake) == static_cast<uint32_t>(sched::Wake::kArmed) &&
         (LoadRelaxed(&g->pending) & ~g->mask) == 0 && LoadRelaxed(&g->wishes) == nullptr &&
         LoadRelaxed(&g->words->deferred) == 0;
}

struct Census {
  uint32_t threads = 0;
  bool all_wait = true;
};

bool AllThreadsWait() {
  Census c;
  sched::ForEachThread(
      [](void* context, sched::G* g) {
        auto* census = static_cast<Census*>(context);
        ++census->threads;
        census->all_wait = census->all_wait && WaitsForGood(g);
      },
      &c);
  return c.all_wait && c.threads != 0 && c.threads == LoadRelaxed(&sched::sched.gcount);
}

bool NothingQueued() {
  const sched::Sched& s = sched::sched;
  if (LoadRelaxed(&s.idle_p_count) != s.procs || LoadRelaxed(&s.spinning) != 0) return false;
  if (LoadRelaxed(&s.global.size) != 0 || LoadRelaxed(&s.wanted_ms) != 0) return false;
  for (uint32_t i = 0; i < s.ps_made; ++i) {
    if (!sched::RunqEmpty(s.ps[i])) return false;
  }
  return !sched::NetpollActive() && sched::NearestDeadline() == 0;
}

// Searches for work on all Ps so far.
uint64_t Searches() {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < sched::sched.ps_made; ++i) {
    sum += LoadRelaxed(&sched::sched.ps[i]->searches);
  }
  return sum;
}

// How many Ms there are; 0 when one runs something.
uint32_t IdleMs() {
  uint32_t count = 0;
  for (sched::M* m = LoadAcquire(&sched::sched.all_ms); m != nullptr; m = m->all_next) {
    if (LoadRelaxed(&m->tid) <= 0) continue;  // pairs: LinkM
    if (LoadRelaxed(&m->cur) != &m->g0 || LoadRelaxed(&m->guest) != nullptr) return 0;
    ++count;
  }
  return count;
}

// Whether anything outside of the scheduler could wake a thread.
bool OutsideIsSilent(uint32_t ms) {
  char text[4096];
  if (plat::ReadProcFile("/proc/self/status", text, sizeof text) <= 0) return false;
  constexpr uint32_t kSysmon = 1;
  if (plat::StatusField(text, "Threads", 10) != ms + kSysmon + plat::OwnThreadCount()) return false;
  if ((plat::StatusField(text, "SigCgt", 16) & ~(kHarmless | posix::ReplacedSignals())) != 0)
    return false;
  if (plat::StatusField(text, "ShdPnd", 16) != 0) return false;
  // Missing: it cannot be known.
  if (plat::ReadProcFile("/proc/self/timers", text, sizeof text) != 0) return false;
  struct itimerval alarm = {};
  if (plat::IsError(plat::Syscall(__NR_getitimer, ITIMER_REAL, &alarm))) return false;
  return alarm.it_value.tv_sec == 0 && alarm.it_value.tv_usec == 0 && !world::ForeignLives();
}

bool AllAsleep() {
  uint64_t before = Searches();
  uint32_t ms = IdleMs();
  return ms != 0 && NothingQueued() && AllThreadsWait() && OutsideIsSilent(ms) && NothingQueued() &&
         IdleMs() == ms && Searches() == before;
}

void OnAllIdle() {
  if (told || !AllAsleep()) return;
  told = true;
  DumpOrder order;
  order.title = "undergo: all threads are asleep - deadlock!";
  if (aborts) order.then = [] { DieOf(SIGABRT); };
  RequestDump(order);
}

}  // namespace

void WatchForDeadlock(bool abort) {
  aborts = abort;
  sched::on_all_idle = OnAllIdle;
}

}  // namespace undergo::diag
