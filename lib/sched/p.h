// SPDX-License-Identifier: Apache-2.0
// P: the right to run Gs, with a run queue and a heap of timers.
//
// There are GOMAXPROCS of them. An M holds one while it runs Gs. Every entry into the scheduler
// takes the P by a compare-and-swap on `status`, which names the M that holds it: so sysmon can
// take the P away from an M that sits in the kernel, whether we saw it go there (kSyscall) or not
// (kRunning without progress), and the M notices at its next entry.
#pragma once

#include "sched/g.h"
#include "sched/timer.h"
#include "sync/mutex.h"

namespace undergo::sched {

enum PState : uint32_t {
  kPIdle,     // in the idle list
  kPRunning,  // its M runs code of the program
  kPSyscall,  // its M is in a blocking call
  kPSched,    // its M, or who took the P away, is in the scheduler
};
constexpr uint32_t PStatus(uint32_t m, PState s) { return m << 2 | s; }

inline constexpr uint32_t kRingSize = 256;

struct alignas(64) P {
  uint32_t status;     // atomic; PStatus(id of the M, state)
  uint32_t id;         // constant
  uint32_t tick;       // written by the M that holds it: counts time slices
  uint32_t call_tick;  // the same: counts blocking calls
  uint32_t searches;   // the same: counts looks for the next G; thieves see that it goes on
  uint32_t handovers;  // the same: counts Gs that ran from runnext
  uint32_t yields;     // the same: looks in a row that were for a yield, the last one at `yielded`
  uint32_t yielded;
  M* m;          // who holds it, for sysmon and traces; written with the P held
  P* next_idle;  // Sched::lock

  G* runnext;     // atomic; runs next in the slice of the G that made it runnable
  uint32_t head;  // atomic; thieves and the owner take here
  uint32_t tail;  // written by the owner alone
  G* ring[kRingSize];

  TimerHeap timers;

  G* free_gs;  // ended Gs with default stacks; owner
  uint32_t free_count;

  // sysmon's notes of its last look.
  uint32_t seen_tick, seen_call_tick;
  uint64_t seen_since;  // when that tick was seen first
  uint64_t seen_cpu;    // CPU clock of the M at the last look
  uint64_t seen_at;     // when that was read; 0: not since that tick
};

// All for the M that holds the P, in the scheduler, unless said otherwise.

// Puts g behind all others, or in front when `next`; then what was in front goes behind. What does
// not fit goes to the global queue.
void RunqPut(P* p, G* g, bool next);
// A thread that begins: behind all others, so that threads begin in the order in which they were
// made. If there is no other, in front, where it stays in the slice of its maker.
void RunqPutNew(P* p, G* g);
// The next G to run here; null when there is none. *inherits: it stays in the running slice.
G* RunqGet(P* p, bool* inherits);
// Moves half of the victim's queue here and returns one of it; also runnext when `with_next`.
G* RunqSteal(P* p, P* victim, bool with_next);
// Any thread, a hint only.
bool RunqEmpty(const P* p);
bool RingEmpty(const P* p);  // there may be a runnext
uint32_t RunqSize(const P* p);

}  // namespace undergo::sched
