// SPDX-License-Identifier: Apache-2.0
// The scheduler in a forked child.
//
// Problem: the child has one thread, a copy of the one that forked, and the memory of all the
// others as it was at that moment: locks held, queues half changed, Gs that run on Ms that are not
// there. It may have come to life without our seeing it, by a system call of the program's own.
//
// So nothing is made quiet in the parent and nothing is repaired in the child. The word `active`
// lies in a page that the kernel clears in children (MADV_WIPEONFORK): there the scheduler does not
// run, and the thread is a plain one whose waits are the kernel's. Only what belongs to the thread
// itself is put right at once. A child that starts another program pays nothing more. The first
// pthread_create starts the scheduler again: all Ps and Ms are made new, the slots of the vanished
// threads are as new, and the thread that forked becomes the first G on the first M. If it had no
// G, it stays a plain thread.
//
// What is not used again: the stack on which the M of that thread looked for work. libc, which
// knows only the G's block in the child, gives it to its next thread. The thread blocks of vanished
// threads are made from the pattern again, for one may have been changing when the process forked.
//
// Rejected: a prepare handler that takes the scheduler's locks. libc takes its own ones after it,
// whose owners may be Gs that need the scheduler to run.
#include "sched/fork.h"

#include <stdlib.h>
#include <sys/prctl.h>

#include "heap/registry.h"
#include "plat/clock.h"
#include "plat/syscall.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/netpoll.h"
#include "sched/overflow.h"
#include "sched/sched.h"
#include "sched/sema.h"
#include "sched/stack.h"
#include "sched/tcb.h"
#include "sched/thread.h"
#include "world/record.h"

namespace undergo::sched {

alignas(kOsPageSize) constinit uint32_t active_page[kOsPageSize / sizeof(uint32_t)] = {};

namespace {

constinit int child = 0;             // the process that AfterForkInChild has seen
constinit G* heir = &main_g;         // what the process's first thread becomes
constinit const G* ended = nullptr;  // its slot is not free: see EndPlainThread
constinit bool forkers_trace = false;
constinit uint32_t exit_word = 0;  // cleared by the kernel when the child's first thread ends

Addr OwnThread() { return reinterpret_cast<Addr>(__builtin_thread_pointer()); }
int Pid() { return static_cast<int>(plat::Syscall(__NR_getpid)); }

void BecomePlain(G* g) {
  g->tid = Pid();
  *TidField(g->fs) = g->tid;
  DropOwnAltStack(g->m);
  g->m = g->forked_on = nullptr;
  g->held = false;
  if (g->state != GState::kPinned) g->state = GState::kRunning;
  g->trimming = 0;
  // The word that the kernel clears, and wakes waiters at, must not lie in a slot.
  plat::Syscall(__NR_set_tid_address, &exit_word);
  if (g->name[0] != '\0') plat::Syscall(__NR_prctl, PR_SET_NAME, &g->name[0]);
  g->name[0] = '\0';
}

void ResetP(P* p) {
  p->status = PStatus(0, kPIdle);
  p->tick = p->call_tick = 0;
  p->m = nullptr;
  p->runnext = nullptr;
  p->head = p->tail = 0;
  p->timers.ResetAfterFork();
  p->free_gs = nullptr;
  p->free_count = 0;
  p->seen_tick = p->seen_call_tick = 0;
  p->seen_at = 0;
}

}  // namespace

void ForkersTrace() { forkers_trace = true; }

void NoteFork() {
  NetpollShare();
  G* g = Self();
  // Then the first M is as good as any, and lives that long anyway.
  if (g == nullptr || g->m == nullptr) return;
  if (LoadRelaxed(&sched.gcount) == 1) MoveTo(&first_m);
  if (forkers_trace && LoadRelaxed(&sched.gcount) > 1) Pin();
  g->forked_on = g->m;
  g->m->forked = true;
}

namespace {

void BecomeChild() {
  StoreRelease(&active_page[0], 0u);  // pairs: Active
  child = Pid();
  heap::ThreadWords& words = heap::thread_words;
  auto* g = static_cast<G*>(words.self);
  words.g = words.self = nullptr;
  words.in_sched = words.deferred = 0;
  // A child of a child that never started the scheduler.
  if (g == nullptr && heir != nullptr && heir->fs == OwnThread()) g = heir;
  if (g != nullptr) BecomePlain(g);
  if (sched.procs == 0) return;  // it never ran
  if (on_forked != nullptr) on_forked(g);
  heir = g;
  SemaAfterFork();
}

}  // namespace

void AfterForkInChild() {
  start_lock.ResetAfterFork();
  BecomeChild();
}

G* ForgetAncestor() {
  if (sched.procs == 0) return heir;
  if (child != Pid()) {
    BecomeChild();
    ResetBlockList();
  }
  sched.lock.ResetAfterFork();
  sched.global = {};
  sched.idle_ps = nullptr;
  sched.idle_ms = nullptr;
  sched.idle_p_count = sched.idle_m_count = 0;
  sched.spinning = sched.wanted_ms = 0;
  sched.m_count = sched.next_m_id = 0;
  sched.poll_until = 0;
  sched.watched = 0;
  sched.sysmon_wake = sched.sysmon_deep = 0;
  for (uint32_t i = 0; i < sched.ps_made; ++i) ResetP(sched.ps[i]);
  sched.sysmon_runs = sched.sysmon_quit = 0;
  sched.shared_waits = sched.spare_ms = 0;
  for (M* m = sched.all_ms; m != nullptr; m = m->all_next) {
    m->tid = 0;
    m->watches = false;
    if (m != &first_m) ++sched.spare_ms;
  }
  DropSlots(heir != nullptr ? heir : ended);
  if (heir != &main_g) {
    main_g.fs = 0;
    main_g.tid = 0;
    main_g.state = GState::kDead;
  }
  NetpollAfterFork();
  MasksAfterFork();
  return heir;
}

void EndPlainThread() {
  if (LastOfLibc()) exit(0);
  // Who joins it does so by libc, which waits for the kernel to clear the id in the block.
  plat::Syscall(__NR_set_tid_address, TidField(OwnThread()));
  ended = heir;
  heir = nullptr;
  heap::DetachThread();
  world::ThreadEnded();
  for (;;) plat::Syscall(__NR_exit, 0);
}

}  // namespace undergo::sched
