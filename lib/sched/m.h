// SPDX-License-Identifier: Apache-2.0
// M: a kernel thread that runs Gs.
//
// All but the first are threads of glibc's own making (sched/start.cc), so that setuid() and its
// kin, which must be repeated on every kernel thread, reach them. An M looks for work on its own
// stack, g0, with its own thread block. The first M is the process's main thread, whose stack and
// block belong to the main G; it gets a stack for g0 from the stack range.
#pragma once

#include "sched/p.h"
#include "world/record.h"

namespace undergo::sched {

struct M {
  G g0;          // state while on the M's own stack; words->in_sched stays above 0
  uint32_t id;   // from 1; constant
  int tid;       // the kernel's; atomic, 0: this M is no more, its memory is for the next one
  int last_tid;  // the same, but stays when the M is no more; 0: had none yet
  Addr block;    // glibc's thread block of this kernel thread; constant
  world::Record* record;  // of this kernel thread; null when nothing is published
  heap::MCache* mcache;   // the heap's cache, handed from G to G

  P* p;                // null: none; written by the M, and by who wakes it
  G* cur;              // what it runs; &g0 when looking for work. Written by the M, read by sysmon
  G* prev;             // who was switched away from; for the first act of the next context
  G* next_g;           // for g0: run this one
  uint64_t mask;       // the kernel thread's signal mask; atomic, written by the M
  bool changes_mask;   // it is about to be another one; the M
  Addr alt_low;        // the program's alternate signal stack that the kernel knows, 0: none; the M
  Addr own_alt;        // ours, for when there is none (overflow.h); 0 before the M has a stack
  G* guest;            // atomic: wants to run on this M; Sched::lock for writers
  P* guest_p;          // that it brings; Sched::lock
  bool spinning;       // looks for work to steal; the M
  bool watches;        // has set sched.watched; the M
  uint64_t handed;     // handovers of all Ps at the last look; the M
  bool dirty;          // was a pinned G's: must not run another one; written by that G
  bool ending;         // has to end; written by who took it out of the idle list
  bool forked;         // has forked: must live as long as the process (PR_SET_PDEATHSIG)
  uint32_t rand;       // the M
  uint32_t inherited;  // the M; switches in this slice through runnext

  uint32_t wake;        // atomic futex; 1: go on
  P* next_p;            // what it gets when woken
  M* next_idle;         // Sched::lock
  M* all_next;          // constant once linked
  uint32_t lost;        // atomic; 1: sysmon took its P without asking
  uint64_t lost_at;     // when it was looked at last; sysmon
  uint64_t lost_cpu;    // its CPU clock then
  uint32_t preempting;  // atomic, Preempting
  uint64_t asked_at;    // sysmon; when the last preemption was asked for
  uint32_t misses;      // sysmon; preemptions in a row that came at a bad moment
};

}  // namespace undergo::sched
