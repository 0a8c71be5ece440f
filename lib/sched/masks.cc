// SPDX-License-Identifier: Apache-2.0
// Counting blocked signals.
//
// Most threads block nothing and are not counted. A mask with few bits adds one to the counter of
// each of its signals; one that blocks nearly everything adds one to `nearly_all` and one to the
// exceptions of each signal that it leaves open. So no usual mask costs more than a few additions.
#include "sched/masks.h"

#include <signal.h>

#include "base/bits.h"
#include "plat/clock.h"
#include "plat/syscall.h"
#include "sched/confine.h"
#include "sched/overflow.h"
#include "sched/sched.h"
#include "world/record.h"
#include "world/stop.h"

namespace undergo::sched {

namespace {

constexpr uint32_t kSignals = 64;
constexpr int kMany = 32;  // bits from which on the open ones are counted

// All atomic.
constinit uint32_t blocked[kSignals] = {};
constinit uint32_t open[kSignals] = {};
constinit uint32_t nearly_all = 0;
constinit uint32_t counted = 0;  // threads whose mask is not empty
constinit uint32_t threads = 0;  // between MaskBorn and MaskGone

void Count(uint64_t mask, uint32_t by) {
  mask &= ~kReservedSignals;
  if (mask == 0) return;
  FetchAddRelaxed(&counted, by);
  bool many = __builtin_popcountll(mask) >= kMany;
  uint32_t* counters = many ? open : blocked;
  if (many) {
    FetchAddRelaxed(&nearly_all, by);
    mask = ~mask & ~kReservedSignals;
  }
  for (; mask != 0; mask &= mask - 1) FetchAddRelaxed(&counters[__builtin_ctzll(mask)], by);
}

}  // namespace

void MaskBorn(uint64_t mask) {
  FetchAddRelaxed(&threads, 1u);
  Count(mask, 1u);
}

void MaskGone(uint64_t mask) {
  Count(mask, ~0u);
  FetchAddRelaxed(&threads, ~0u);
}

void MasksAfterFork() {
  for (uint32_t& n : blocked) n = 0;
  for (uint32_t& n : open) n = 0;
  nearly_all = counted = threads = 0;
}

void SetMaskOf(G* g, uint64_t mask) {
  mask &= ~kReservedSignals;
  uint64_t before = g->mask;
  if (before != mask) {
    Count(mask, 1u);
    Count(before, ~0u);
    g->mask = mask;
    StoreRelaxed(&g->handling, g->handling & mask);
  }
  StoreRelaxed(&g->m->mask, mask);
}

uint64_t IdleMask() {
  uint32_t all = LoadRelaxed(&threads);
  if (LoadRelaxed(&counted) < all) return 0;
  uint64_t mask = 0;
  uint32_t many = LoadRelaxed(&nearly_all);
  for (uint32_t i = 0; i < kSignals; ++i) {
    uint32_t n = LoadRelaxed(&blocked[i]) + many - LoadRelaxed(&open[i]);
    if (n >= all) mask |= uint64_t{1} << i;
  }
  return mask & ~kReservedSignals;
}

void SetKernelMask(M* m, uint64_t mask) {
  if (m->mask == mask) return;
  m->changes_mask = true;
  CompilerFence();
  StoreRelaxed(&m->mask, m->mask & mask);  // what is blocked for sure: MayTake looks at it
  if (UNDERGO_LIKELY(MayChangeMasks())) world::SetSignalMask(mask);
  StoreRelease(&m->mask, mask);  // pairs: MayTake
  CompilerFence();
  m->changes_mask = false;
}

void SetIdleMask(M* m) {
  for (;;) {
    uint64_t mask = IdleMask();
    SetKernelMask(m, mask);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: Count, which TellIdleMs comes after
    if ((IdleMask() & ~mask) == 0) return;
  }
}

namespace {

// Whether a signal that all threads block might still come to this M: it is idle, or between two
// threads, or its thread is at its end. One in a call may have given the kernel another mask.
bool MayTake(const M* m, uint64_t signals) {
  if ((signals & ~LoadAcquire(&m->mask)) == 0) return false;  // pairs: HearOnIdleM
  const G* g = LoadRelaxed(&m->cur);
  return g == &m->g0 || (g->state != GState::kSyscall && g->state != GState::kPinned);
}

}  // namespace

void TellIdleMs(uint64_t signals) {
  constexpr uint32_t kYields = 200, kTries = 10'000;  // it may have to wait for a CPU
  if (IsConfined()) return;
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next) {  // pairs: LinkM
    bool sent = false;
    for (uint32_t i = 0; i < kTries && LoadAcquire(&m->tid) > 0; ++i) {  // pairs: EndM
      signals &= IdleMask();
      if (!MayTake(m, signals)) break;
      if (!sent && HearsWhatIdleMsHear(m->cur)) {
        if (plat::IsError(world::SendStopSignal(m->tid, m))) break;
        sent = true;
      }
      i < kYields ? void(plat::Syscall(__NR_sched_yield)) : plat::NapNs(50'000);
    }
  }
}

void HearOnIdleM(M* m, uint64_t* mask) {
  if (m->changes_mask) return;  // to one of before; SetIdleMask looks again
  uint64_t idle = IdleMask();
  *mask |= idle;
  StoreRelease(&m->mask, m->mask | idle);  // pairs: TellIdleMs
}

void AskForMask(M* m, G* prev) {
  uint64_t now = world::CurrentSignalMask() & ~kReservedSignals;
  StoreRelaxed(&m->mask, now);
  if (now == prev->mask) return;
  Count(now, 1u);
  Count(prev->mask, ~0u);
  prev->mask = now;
  if ((LoadRelaxed(&prev->pending) & ~now) != 0) StoreRelaxed(&prev->words->deferred, 1u);
}

void AdoptAltStack(M* m, G* g) {
  stack_t stack = AltStackOf(m);
  if (g->alt_low != 0) {
    stack.ss_sp = reinterpret_cast<void*>(g->alt_low);
    stack.ss_size = g->alt_size;
    stack.ss_flags = g->alt_flags;
  }
  plat::Syscall(__NR_sigaltstack, &stack, nullptr);
  m->alt_low = g->alt_low;
  if (m->record != nullptr) {
    m->record->altstack = g->alt_low;
    m->record->altstack_size = g->alt_low != 0 ? g->alt_size : 0;
  }
}

void LeaveAltStack(M* m, G* from) {
  if (reinterpret_cast<Addr>(__builtin_frame_address(0)) - from->alt_low >= from->alt_size) return;
  SetKernelMask(m, ~kReservedSignals);
}

void AltStackOfMain(M* m, G* g) {
  stack_t stack = {};
  plat::Syscall(__NR_sigaltstack, nullptr, &stack);
  bool on = (stack.ss_flags & SS_DISABLE) == 0 && !IsOwnAltStack(stack);
  g->alt_low = m->alt_low = on ? reinterpret_cast<Addr>(stack.ss_sp) : 0;
  g->alt_size = stack.ss_size;
  g->alt_flags = stack.ss_flags & ~(SS_ONSTACK | SS_DISABLE);
}

}  // namespace undergo::sched
