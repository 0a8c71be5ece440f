// SPDX-License-Identifier: Apache-2.0
// What the collector may skip of stacks that do not run.
//
// A G that waits has its registers on its stack, at or above G::sp; below that nothing is alive.
// The block and the G itself, at the slot's top, always count: there are the thread's result, its
// argument, its TLS. A running G is the world's business (world/stop.cc).
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/tcb.h"
#include "sched/thread.h"

namespace undergo::sched {

namespace {

bool IsParked(const G* g) {
  return LoadAcquire(&g->on_cpu) == 0 &&  // pairs: FinishSwitch
         (g->state == GState::kWaiting || g->state == GState::kRunnable ||
          g->state == GState::kDead);
}

Addr LiveFrom(const G* g) {
  Addr base = SlotBase(g);
  if (g->fs == 0) return base;  // being made
  Addr block = AlignDown(g->fs + kPthreadSize - BlockSize(), 64);
  if (g->state == GState::kIdle || g->user_stack) return block;
  if (!IsParked(g)) return base;
  return g->sp > base && g->sp < block ? g->sp : base;
}

}  // namespace

world::ParkedStack ParkedStackAt(Addr at) {
  const G& main = main_g;
  if (at >= main.scan_low && at < main.scan_high) {
    bool exact = IsParked(&main) && main.sp >= main.scan_low && main.sp < main.scan_high;
    return {exact ? main.sp : 0, main.scan_high};
  }
  Addr end;
  G* g = SlotAround(at, &end);
  if (at < main.scan_low) end = Min(end, main.scan_low);
  if (g == nullptr || g->slot_shift == 0) return {0, end};
  return {LiveFrom(g), end};
}

}  // namespace undergo::sched
