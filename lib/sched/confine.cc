// SPDX-License-Identifier: Apache-2.0
// Filters of system calls that forbid what the scheduler calls.
//
// Problem: a program that locks itself in allows what its own code needs. The scheduler needs more:
// epoll, signals, new kernel threads whenever Gs block the ones that there are. A filter that
// answers by errors would leave Gs without a kernel thread for ever, one that kills would end the
// program.
//
// The filter is seen before it is installed (posix/filter.cc). If it forbids anything of ours, the
// process goes back to nearly what it natively is: there is a kernel thread for each thread, so
// that all of them can block; nothing waits in the poller any more, reads and writes are the plain
// calls; nobody is preempted by a signal, the P of who computes for long goes to another kernel
// thread. What is left are futexes and memory. Gs that waited in the poller make their calls anew.
//
// A program that makes its first thread after such a filter gets kernel threads.
#include "sched/confine.h"

#include "plat/clock.h"
#include "sched/netpoll.h"
#include "sched/preempt.h"
#include "sched/sched.h"
#include "sched/thread.h"

namespace undergo::sched {

constinit uint32_t confinement = 0;

namespace {

constexpr uint64_t kPatience = 2'000'000'000;  // ns
constinit uint32_t wanted = 0;                 // atomic: Ms that there should be

// Ms count from when they are made; one that has an id has made libc's calls of its start.
uint32_t Begun() {
  uint32_t n = 0;
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next) {  // pairs: LinkM
    n += LoadAcquire(&m->tid) > 0;                                          // pairs: MMain
  }
  return n;
}

// `idle`: as many as will be idle then.
bool AllAreThere(uint32_t idle) {
  uint32_t count = LoadRelaxed(&sched.m_count);
  return count >= LoadRelaxed(&wanted) && Begun() >= count &&
         LoadRelaxed(&sched.idle_m_count) >= idle;
}

// Until sysmon has begun a look that sees the confinement: in the one before it may be about to make
// any call.
void AwaitSysmon(uint64_t deadline) {
  uint32_t seen = LoadAcquire(&sched.sysmon_looks);  // pairs: RunSysmon
  while (LoadAcquire(&sched.sysmon_runs) != 0 && LoadAcquire(&sched.sysmon_looks) == seen &&
         plat::NowNs() < deadline) {  // pairs: RunSysmon
    WakeSysmon();
    plat::NapNs(200'000);
  }
}

}  // namespace

void Confine(uint32_t what) {
  if (!Configured() || (LoadRelaxed(&confinement) & what) == what) return;
  if (!Active()) {
    StoreRelaxed(&confinement, LoadRelaxed(&confinement) | what);
    return;
  }
  StoreRelaxed(&preempt_by_signal, false);
  uint32_t count = Min(LoadRelaxed(&sched.gcount) + sched.procs + 1, kMaxMs - 1);
  uint32_t there = LoadRelaxed(&sched.m_count);
  uint32_t made = count > there ? count - there : 0;
  uint32_t idle = LoadRelaxed(&sched.idle_m_count) + made;
  StoreRelease(&wanted, count);  // pairs: MakeConfinedMs
  uint64_t deadline = plat::NowNs() + kPatience;
  // Some of the idle ones may have found work.
  while (!AllAreThere(idle > sched.procs ? idle - sched.procs : 0) && plat::NowNs() < deadline) {
    WakeSysmon();
    plat::NapNs(200'000);
  }
  StoreRelaxed(&confinement, LoadRelaxed(&confinement) | what);
  NetpollStop();
  AwaitSysmon(plat::NowNs() + kPatience);
  // Who was in the middle of a call that it must not make again has made it.
  plat::NapNs(2'000'000);
}

bool MakeConfinedMs() {
  uint32_t count = LoadAcquire(&wanted);  // pairs: Confine
  bool did = false;
  while (LoadRelaxed(&sched.m_count) < count && MayMakeThreads()) {
    if (!NewM()) break;
    did = true;
  }
  return did;
}

}  // namespace undergo::sched
