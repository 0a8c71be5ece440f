// SPDX-License-Identifier: Apache-2.0
// Unused pages of stacks.
//
// Problem: a thread that once called deeply keeps the pages of its stack as long as it lives, and
// most threads of a program with very many wait nearly always. What lies below the stack pointer of
// a waiting G is dead by the ABI, but for the red zone.
//
// sysmon goes round all Gs, some at a time, and gives back what a G that has waited for two seconds
// does not use, if that is some pages; a page below the stack pointer stays, so that the usual way
// back does not fault. Each wait is looked at once.
//
// Meanwhile the G may be made runnable, and an M may switch to it. The switch must not pay for
// that, so the handshake is lopsided: the M sets on_cpu and then reads `trimming`; sysmon sets
// `trimming`, lets the kernel put a memory barrier on all running threads, and then reads on_cpu.
// Either sysmon sees that the G runs, or the M sees that it has to wait; some dozen microseconds at
// the most, as few stacks are done at a time. Where the kernel has no such barrier nothing is
// trimmed.
//
// Looking writes to the G, and the stop that ends a mark reads all pages written since its begin: a
// round waits while the collector marks.
//
// A program that cuts its threads' stacks into pieces for coroutines of its own, and waits on a
// shallow piece while deeper ones are in use, breaks the ABI and would lose them.
//
// Rejected: at the collector's stop (as Go does; ten thousand stacks are a long stop), a
// compare-and-swap in each switch (a quarter of its cost).
#include "sched/trim.h"

#include <linux/membarrier.h>
#include <sys/mman.h>

#include "heap/sweep.h"
#include "plat/clock.h"
#include "plat/vm.h"
#include "sched/confine.h"
#include "sched/sched.h"
#include "sched/stack.h"

namespace undergo::sched {

namespace {

#ifndef UNDERGO_DEBUG
constexpr uint64_t kWaitsFor = 2'000'000'000;  // ns of a wait
constexpr uint64_t kPause = 1'000'000'000;     // ns between rounds, or as long as the last took
constexpr uint64_t kBetween = 5'000'000;       // ns between two steps of a round
#else  // as often as can be, so that each test is one of this
constexpr uint64_t kWaitsFor = 20'000'000, kPause = 0, kBetween = 0;
#endif
constexpr uint32_t kPerStep = 1000;  // Gs
constexpr uint32_t kBatch = 16;      // stacks in one handshake
constexpr size_t kRedZone = 128;
constexpr size_t kKept = kOsPageSize;       // below the red zone
constexpr size_t kWorth = 3 * kOsPageSize;  // less is not worth the faults later
constexpr size_t kWindow = 4 * kMiB;        // looked at in one piece

struct Stack {
  G* g;
  Addr sp, low, high;
};

// All of sysmon.
constinit G* at = nullptr;          // the next of the round; null: none is under way
constinit uint64_t began = 0;       // when the round began
constinit uint64_t finished = 0;    // began, of the last round that came to its end
constinit uint64_t next = 0;        // no step before
constinit bool impossible = false;  // atomic; anybody

bool HasBarrier() {
  constexpr auto kBarrier = MEMBARRIER_CMD_PRIVATE_EXPEDITED;
  if (!plat::IsError(plat::Syscall(__NR_membarrier, kBarrier, 0, 0))) return true;
  plat::Syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  return !plat::IsError(plat::Syscall(__NR_membarrier, kBarrier, 0, 0));
}

bool Waits(const G* g) {
  return g->state == GState::kWaiting && LoadAcquire(&g->on_cpu) == 0;  // pairs: FinishSwitch
}

// The pages in [low, high) that are in memory: where the lowest is, down to a long gap; how much.
size_t Resident(Addr* low, Addr high) {
  static constinit uint8_t pages[kWindow / kOsPageSize] = {};
  size_t found = 0;
  Addr lowest = high;
  for (Addr end = high; end > *low;) {
    Addr from = end - Min(end - *low, kWindow);
    if (plat::IsError(plat::Syscall(__NR_mincore, from, end - from, &pages[0]))) break;
    size_t before = found;
    for (size_t i = 0; i < (end - from) / kOsPageSize; ++i) {
      if ((pages[i] & 1) == 0) continue;
      if (found == before) lowest = from + i * kOsPageSize;
      found += kOsPageSize;
    }
    if (found == before) break;
    end = from;
  }
  *low = lowest;
  return found;
}

// Whether there is something to give back. The G may go on meanwhile.
bool Look(G* g, uint64_t now, Stack* s) {
  if (!Waits(g) || g->user_stack || g->fs == 0) return false;
  uint64_t since = g->since;
  if (since == g->trim_seen || now - since < kWaitsFor) return false;
  g->trim_seen = since;
  s->g = g;
  s->sp = g->sp;
  if (s->sp - g->stack_low >= g->stack_high - g->stack_low) return false;  // on another stack
  s->low = AlignUp(g->stack_low, kOsPageSize);
  s->high = AlignDown(s->sp - kRedZone - kKept, kOsPageSize);
  return s->high > s->low && s->high - s->low >= kWorth && Resident(&s->low, s->high) >= kWorth;
}

void Trim(const Stack* stacks, uint32_t count) {
  heap::BusyScope busy;  // an M may wait for the end
  for (uint32_t i = 0; i < count; ++i) StoreRelaxed(&stacks[i].g->trimming, 1u);
  bool seen = HasBarrier();  // pairs: SwitchTo
  if (!seen) StopTrimming();
  for (uint32_t i = 0; i < count; ++i) {
    const Stack& s = stacks[i];
    if (seen && Waits(s.g) && s.g->sp == s.sp) {
      plat::Syscall(__NR_madvise, s.low, s.high - s.low, MADV_DONTNEED);
    }
    StoreRelease(&s.g->trimming, 0u);  // pairs: AwaitTrimmed
  }
}

// Some Gs of the round; its end sets `at` to null.
void Step(uint64_t now) {
  Stack stacks[kBatch];
  uint32_t count = 0;
  for (uint32_t i = 0; i < kPerStep && at != nullptr; ++i, at = at->all_next) {
    if (!Look(at, now, &stacks[count]) || ++count < kBatch) continue;
    Trim(stacks, count);
    count = 0;
  }
  if (count != 0) Trim(stacks, count);
}

}  // namespace

void TrimStacks(uint64_t now) {
  if (now < next || LoadRelaxed(&impossible) || IsConfined()) return;
  if (LoadRelaxed(&heap::gc_heap.marking)) return;
  next = now + kBetween;
  if (at == nullptr) {
    at = FirstSlot();
    began = now;
  }
  Step(now);
  if (at != nullptr) return;
  finished = began;
  next = now + Max(kPause, now - began);
}

bool StacksTrimmedSince(uint64_t when) {
  return LoadRelaxed(&impossible) || IsConfined() || finished >= when + kWaitsFor;
}

void StopTrimming() { StoreRelaxed(&impossible, true); }

void AwaitTrimmed(G* g) {
  for (uint32_t i = 0; LoadAcquire(&g->trimming) != 0; ++i) {  // pairs: Trim
    if (i % 256 == 255) {
      plat::Syscall(__NR_sched_yield);
    } else {
      CpuRelax();
    }
  }
}

}  // namespace undergo::sched
