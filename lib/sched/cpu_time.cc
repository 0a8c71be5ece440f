// SPDX-License-Identifier: Apache-2.0
// CPU time of Gs, by the CPU clocks of the Ms that run them.
//
// The clock of a kernel thread costs a system call (0.2 us), as much as several switches; so it is
// read only once a program has shown that it wants to know. What a thread computed before counts
// for the first thread alone, as all that its M had computed when it became a G. A thread that runs
// at that moment, and may go on for long without a switch, counts from when somebody first looks.
#include "sched/cpu_time.h"

#include <time.h>

#include "plat/clock.h"
#include "plat/syscall.h"
#include "sched/sched.h"

namespace undergo::sched {

constinit uint32_t accounting = 0;

uint64_t ThreadCpuClock(int tid) {
  auto clock = static_cast<clockid_t>(~static_cast<uint32_t>(tid) << 3 | 6);
  struct timespec t;
  if (plat::IsError(plat::Syscall(__NR_clock_gettime, clock, &t))) return 0;
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

void StartAccounting() { StoreRelaxed(&accounting, 1u); }

void AccountSwitch(G* from, G* to) {
  uint64_t now = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  uint64_t began = LoadRelaxed(&from->ran_from);
  if (began != 0 && now > began) StoreRelaxed(&from->cpu_ns, from->cpu_ns + now - began);
  StoreRelaxed(&to->ran_from, now);
}

uint64_t CpuTime(G* g) {
  uint64_t used = LoadRelaxed(&g->cpu_ns);
  uint64_t from = LoadRelaxed(&g->ran_from);
  bool runs = LoadAcquire(&g->on_cpu) != 0;  // pairs: FinishSwitch
  const M* m = g->m;
  if (!runs || m == nullptr) return used;
  uint64_t now = g == Self() ? plat::NowNs(CLOCK_THREAD_CPUTIME_ID) : ThreadCpuClock(m->tid);
  // A value that comes too late, of an M that the G has left, is gone with its next slice.
  if (from == 0 && now != 0 && CasAcqRel(&g->ran_from, &from, now)) return used;
  return used + (now > from ? now - from : 0);
}

}  // namespace undergo::sched
