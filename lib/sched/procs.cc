// SPDX-License-Identifier: Apache-2.0
// Fewer or more Ps.
//
// A P that is too many is taken away from its M, as from one that sits in the kernel, and its run
// queue goes to the global one. Its timers stay where they are: all heaps that ever existed are
// looked at. It is used again when the number grows. Nothing has to be stopped for that, unlike in
// Go, because sysmon can take any P at any time.
#include "sched/procs.h"

#include "plat/clock.h"
#include "plat/vm.h"
#include "sched/stack.h"

namespace undergo::sched {

namespace {

constexpr uint64_t kPeriod = 1'000'000'000;  // ns
constinit ProcsHook ask = nullptr;
constinit uint64_t asked = 0;  // ns; sysmon

// Until its M has left the scheduler, which does not take long.
void TakeAnyway(P* p) {
  for (;;) {
    if (TakeThisIdleP(p)) break;
    uint32_t status = LoadAcquire(&p->status);  // pairs: LeaveSched
    M* m = p->m;
    bool free = (status & 3) == kPRunning || (status & 3) == kPSyscall;
    if (free && m != nullptr && (status & 3) == kPRunning) {
      StoreRelaxed(&m->lost, 1u);
      sched.any_lost = true;
    }
    if (free && CasAcqRel(&p->status, &status, PStatus(0, kPSched))) break;  // pairs: EnterSched
    plat::NapNs(20'000);
  }
  p->m = nullptr;
  StoreRelease(&p->status, PStatus(0, kPSched));  // pairs: Retake
}

void Empty(P* p) {
  GQueue work;
  bool inherits;
  while (G* g = RunqGet(p, &inherits)) work.Push(g);
  if (work.head != nullptr) MakeRunnableGlobally(&work);
  while (G* g = p->free_gs) {
    p->free_gs = g->next;
    GiveSlot(g);
  }
  p->free_count = 0;
}

}  // namespace

void ConfigureProcs(ProcsHook hook) { ask = hook; }

void SetProcs(uint32_t n) {
  n = static_cast<uint32_t>(Min(Max(n, 1), kMaxProcs));
  uint32_t before = sched.procs;
  for (uint32_t i = before; i < n; ++i) {
    if (i == sched.ps_made) {
      auto* p = static_cast<P*>(plat::MapPages(AlignUp(sizeof(P), kOsPageSize)));
      if (p == nullptr) return;
      p->id = i;
      sched.ps[i] = p;
      StoreRelease(&sched.ps_made, i + 1);  // pairs: none; readers look at it again and again
    }
    PutIdleP(sched.ps[i]);
    StoreRelaxed(&sched.procs, i + 1);
    WakeP();
  }
  if (n >= before) return;
  StoreRelaxed(&sched.procs, n);
  for (uint32_t i = n; i < before; ++i) {
    TakeAnyway(sched.ps[i]);
    Empty(sched.ps[i]);
  }
}

void AdaptProcs(uint64_t now) {
  if (ask == nullptr || now - asked < kPeriod) return;
  bool first = asked == 0;
  asked = now;
  if (first) return;
  int n = ask();
  if (n > 0 && static_cast<uint32_t>(n) != sched.procs) SetProcs(static_cast<uint32_t>(n));
}

}  // namespace undergo::sched
