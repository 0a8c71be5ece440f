// SPDX-License-Identifier: Apache-2.0
// The state that all Ms share, and the moves of Gs between them. For the files of sched/; what
// posix/ uses is in park.h, handoff.h, thread.h.
#pragma once

#include "sched/m.h"

namespace undergo::sched {

inline constexpr uint32_t kMaxProcs = 256;
inline constexpr uint32_t kMaxMs = 10'000;  // as Go's

struct Sched {
  sync::Mutex lock;
  GQueue global;          // lock; its size is read without
  P* idle_ps;             // lock
  M* idle_ms;             // lock
  uint32_t idle_p_count;  // lock for writers, atomic
  uint32_t idle_m_count;  // lock for writers, atomic
  uint32_t spinning;      // atomic: Ms that look for work to steal
  uint32_t wanted_ms;     // atomic: Ms that sysmon should make
  uint32_t m_count;       // atomic: Ms that exist
  uint32_t spare_ms;      // atomic: Ms that ended, in the list of all
  uint32_t shared_waits;  // atomic: Ms in waits for what processes share
  uint32_t next_m_id;     // atomic
  uint32_t procs;         // number of Ps in use; sysmon changes it (procs.cc)
  uint32_t ps_made;       // Ps that were ever in use; grows only
  M* all_ms;              // atomic head; grows only
  bool any_lost;          // M::lost of one may be 1; sysmon
  uint64_t last_poll;     // atomic; monotonic ns of the last look at the descriptors, 0: one M
                          // waits in the poller right now
  uint64_t poll_until;    // atomic; when that M will come back, monotonic ns
  uint32_t watched;       // atomic; 1: an M comes back soon to look after the Ps' runnext
  uint32_t sysmon_wake;   // atomic futex, see sysmon.cc
  uint32_t sysmon_runs;   // atomic; start_lock for writers
  uint32_t sysmon_quit;   // atomic; 1: it should end
  uint32_t sysmon_looks;  // atomic; counts them
  int sysmon_tid;         // its kernel thread; constant while it runs
  uint32_t only_first;    // atomic; 1: one thread lives for long; Ms but the first end
  uint32_t sysmon_deep;   // atomic; 1: it sleeps until somebody takes a P
  uint32_t gcount;        // atomic: threads that live, main included
  uint64_t next_goid;     // atomic
  uint64_t now;           // monotonic ns of sysmon's last look; for waits that are told in minutes
  P* ps[kMaxProcs];       // each constant once made
};
extern constinit Sched sched;

// --- schedule.cc ---

// From here to LeaveSched the running G stays on its M; handlers of the program and stops of the
// world wait. Returns its P, null when sysmon took it away or there is none.
P* EnterSched(G* g);
// Takes a P if there is none: waits in the global queue for it when necessary.
void LeaveSched(G* g);

// In the scheduler: the running G stops running; what comes next runs. Returns when it runs again.
// The G must be in a queue, or somebody will put it there.
void Schedule(G* g);
// Waits until the registers of g are saved, and its stack is left, by an M that is about to do so.
// Not on a G that such an M may wait for.
void AwaitOffCpu(const G* g);
// First act of each context after a switch.
void FinishSwitch(G* g);
// In the scheduler; the caller holds p or has none (null).
void MakeRunnable(P* p, G* g, bool next);
// Any thread, also one without a G; batches.
void MakeRunnableGlobally(GQueue* gs);
// g0 of an M: looks for work until the M has to end.
void RunM(M* m);

// The nearest one of all heaps, 0: none.
uint64_t NearestDeadline();
// A deadline entered a heap: the M that waits for the nearest one may have to wait less.
void TimerAdded(uint64_t when);

// --- idle.cc ---

// Wakes an M for work that was just made, unless one is looking for work already, or, for work that
// is `handed` to who runs next here, watches.
void WakeP(bool handed = false);
// Takes this P out of the idle list; false when it is not in.
bool TakeThisIdleP(P* p);
// Takes a P from the idle list; null when there is none. Gives one back that has no work.
P* TakeIdleP();
void PutIdleP(P* p);
// The P was taken away from its M: starts another M if there is work, else it is idle.
void HandOffP(P* p);

// Ends idle Ms, but neither the first one nor those that forked, until at most `keep` are idle.
void EndIdleMs(uint32_t keep);

// --- guest.cc ---

// The running G goes on on this M, as soon as that is free. False when it could not.
bool MoveTo(M* m);
// The running M becomes a pinned G's own: returns the one that wanted to run here, to be made
// runnable.
GQueue DropGuest(M* m);

// A hint: some other P runs something, so that who owns a lock may be about to release it.
inline bool OthersRun() {
  return sched.procs > 1 && LoadRelaxed(&sched.idle_p_count) + 1 < sched.procs;
}

// Set by posix/: handlers of the program that had to wait run now, on g (null: a plain thread) or,
// when g is a g0, elsewhere.
using SchedEndHook = void (*)(G* g);
extern constinit SchedEndHook on_sched_end;
// The same for G::wishes.
extern constinit SchedEndHook on_wishes;
// The same: the thread has no more instruction of the program before it. In the scheduler.
extern constinit SchedEndHook on_thread_end;
// In a forked child, before anything else runs there: its parent's other threads are gone. `g` is
// what the thread was, or null.
extern constinit SchedEndHook on_forked;
// The same: the process's first kernel thread becomes g's M. Before the scheduler runs.
extern constinit SchedEndHook on_adopted;
// A G with waits_for set ends a call, still on its M.
extern constinit SchedEndHook on_call_end;

// Calls on_sched_end on the running thread if something waits for it and may run now.
inline void RunDeferred() {
  heap::ThreadWords& w = heap::thread_words;
  if (UNDERGO_UNLIKELY(LoadRelaxed(&w.deferred) != 0) && w.busy == 0 && w.in_sched == 0 &&
      w.waiter == nullptr) {
    on_sched_end(Self());
  }
}

// --- start.cc ---

extern constinit sync::Mutex start_lock;
// Makes one more M, for sysmon.
bool NewM();
void WakeSysmon();

// The M of the process's first kernel thread.
extern constinit M first_m;

}  // namespace undergo::sched
