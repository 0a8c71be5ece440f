// SPDX-License-Identifier: Apache-2.0
// Alternate signal stacks. The kernel knows that of the G that runs; a switch changes it
// (sched/masks.h).
#include "plat/syscall.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "posix/signal_mask.h"
#include "sched/overflow.h"
#include "sched/sched.h"
#include "world/blocked_call.h"
#include "world/record.h"

namespace undergo::posix {

namespace {

int HideOwn(int result, stack_t* old) {
  if (result == 0 && old != nullptr && sched::IsOwnAltStack(*old)) *old = {nullptr, SS_DISABLE, 0};
  return result;
}

}  // namespace

int sigaltstack(const stack_t* stack, stack_t* old) {
  if (real::sigaltstack == nullptr) real::Resolve();
  if (stack == nullptr) return HideOwn(real::sigaltstack(stack, old), old);
  G* g = SignalSelf();
  bool on = (stack->ss_flags & SS_DISABLE) == 0;
  Addr low = on ? reinterpret_cast<Addr>(stack->ss_sp) : 0;
  if (on) LeaveAltStacksToProgram();
  // The G stays on its M while both learn of it.
  if (g != nullptr) heap::thread_words.busy++;
  int result = real::sigaltstack(stack, old);
  if (result == 0 && world::publishing) world::SetAltStack(low, on ? stack->ss_size : 0);
  if (g != nullptr) {
    if (result == 0) {
      g->alt_low = g->m->alt_low = low;
      g->alt_size = stack->ss_size;
      g->alt_flags = stack->ss_flags & ~(SS_ONSTACK | SS_DISABLE);
    }
    heap::EndBusy();
  }
  return HideOwn(result, old);
}

}  // namespace undergo::posix
