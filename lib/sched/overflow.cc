// SPDX-License-Identifier: Apache-2.0
// Overflows of stacks.
//
// Problem: who has no stack left cannot run a handler, so natively a thread that overflows its
// stack ends the process without a word. A line that says which thread it was, and how large its
// stack was, needs an alternate stack for each kernel thread.
//
// To the program there is none: posix/ hides it, and sees to it that no handler of the program runs
// there. Handlers that are installed with SA_ONSTACK lose that flag in the kernel as long as no
// thread of the program has an alternate stack, when it means nothing. As soon as one has, ours are
// no longer given out; a handler that still comes to one stays on its M. If the program handles
// SIGSEGV when it makes its first thread, or has an alternate stack, all is left as it is.
#include "sched/overflow.h"

#include <sys/auxv.h>
#include <sys/resource.h>

#include "base/fmt.h"
#include "plat/log.h"
#include "plat/syscall.h"
#include "sched/sched.h"
#include "sched/thread.h"

namespace undergo::sched {

constinit bool own_alt_stacks = false;

namespace {

bool IsIn(Addr a, Addr low, Addr high) { return a >= low && a < high; }

struct Bounds {
  Addr fault_low, fault_high;  // where an overflow faults; equal: unknown
  size_t size;                 // as the program asked for
};

// The main stack ends with the program's file name; the kernel keeps a gap free below it.
Bounds MainBounds() {
  constexpr size_t kGap = kMiB;
  struct rlimit limit = {};
  Addr top = AlignUp(getauxval(AT_EXECFN), kOsPageSize);
  if (plat::IsError(plat::Syscall(__NR_prlimit64, 0, RLIMIT_STACK, nullptr, &limit)) ||
      limit.rlim_cur > top) {
    return {};
  }
  Addr low = top - limit.rlim_cur;
  return {low - kGap, low + kOsPageSize, limit.rlim_cur};
}

Bounds BoundsOf(const G* g) {
  if (g->main) return MainBounds();
  if (g->user_stack) return {};
  return {g->stack_low - g->guard_size, g->stack_low, g->stack_size + g->guard_size};
}

}  // namespace

void GiveAltStack(M* m) {
  if (!own_alt_stacks || m->alt_low != 0) return;
  stack_t stack = AltStackOf(m);
  plat::Syscall(__NR_sigaltstack, &stack, nullptr);
}

stack_t AltStackOf(const M* m) {
  stack_t s = {};
  bool on = own_alt_stacks && m->own_alt != 0;
  s.ss_sp = on ? reinterpret_cast<void*>(m->own_alt) : nullptr;
  s.ss_size = on ? kAltSize : 0;
  s.ss_flags = on ? 0 : SS_DISABLE;
  return s;
}

bool IsOwnAltStack(const stack_t& s) {
  auto low = reinterpret_cast<Addr>(s.ss_sp);
  if (low == 0 || (s.ss_flags & SS_DISABLE) != 0) return false;
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next) {  // pairs: LinkM
    if (m->own_alt == low) return true;
  }
  return first_m.own_alt == low;
}

bool OnOwnAltStack(const M* m) {
  Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
  return m->own_alt != 0 && here - m->own_alt < kAltSize;
}

void DropOwnAltStack(const M* was) {
  stack_t stack = {};
  if (plat::IsError(plat::Syscall(__NR_sigaltstack, nullptr, &stack))) return;
  bool its = was != nullptr && reinterpret_cast<Addr>(stack.ss_sp) == was->own_alt;
  if (!its && !IsOwnAltStack(stack)) return;
  stack.ss_flags = SS_DISABLE;
  plat::Syscall(__NR_sigaltstack, &stack, nullptr);
}

void TellOverflow(const siginfo_t* info) {
  G* g = Self();
  if (g == nullptr || g->g0 || info->si_code <= 0) return;
  Bounds b = BoundsOf(g);
  if (!IsIn(reinterpret_cast<Addr>(info->si_addr), b.fault_low, b.fault_high)) return;
  char text[200];
  Fmt line(text, sizeof text);
  line.Str("undergo: thread ").Dec(g->goid).Str(" \"").Str(g->name);
  line.Str("\" overflowed its stack of ").Dec(b.size / kKiB);
  line.Str(" KiB; pthread_attr_setstacksize or ulimit -s gives it a larger one\n");
  plat::LogWrite(line.text(), line.length());
}

}  // namespace undergo::sched
