// SPDX-License-Identifier: Apache-2.0
// CPU time of Gs, by the CPU clocks of the Ms that run them.
//
// The clock of a kernel thread costs a system call (0.2 us), as much as several switches; so it is
// read only once a program has shown that it wants to know. What a thread computed before counts
// for the first thread alone, as all that its M had computed when it became a G.
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

void StartAccounting() {
  if (ExchangeAcqRel(&accounting, 1u) != 0) return;  // pairs: itself
  G* g = Self();
  if (g != nullptr) g->ran_from = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
}

void AccountSwitch(G* from, G* to) {
  uint64_t now = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  if (from->ran_from != 0) StoreRelaxed(&from->cpu_ns, from->cpu_ns + now - from->ran_from);
  StoreRelaxed(&to->ran_from, now);
}

uint64_t CpuTime(const G* g) {
  uint64_t used = LoadRelaxed(&g->cpu_ns);
  uint64_t from = LoadRelaxed(&g->ran_from);
  bool runs = LoadAcquire(&g->on_cpu) != 0;  // pairs: FinishSwitch
  const M* m = g->m;
  if (from == 0 || !runs || m == nullptr) return used;
  uint64_t now = g == Self() ? plat::NowNs(CLOCK_THREAD_CPUTIME_ID) : ThreadCpuClock(m->tid);
  return used + (now > from ? now - from : 0);
}

}  // namespace undergo::sched
