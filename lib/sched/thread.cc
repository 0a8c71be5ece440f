// SPDX-License-Identifier: Apache-2.0
// Begin and end of threads.
//
// A thread's first instruction is in Begin, on a stack whose top holds its glibc block. It does
// what glibc's start_thread does: the landing place for pthread_exit and cancellation, the
// program's routine, destructors of thread-local variables and keys. Then it announces its end and
// is never switched to again. Whoever takes its slot next waits until its M has left the stack.
//
// Join: `joiner` is null, the Waiter of the thread that joins, or Ended(). Each change is a
// compare-and-swap or an exchange, so that end and join meet exactly once. A slot is free when its
// thread has ended and was joined, or was detached.
#include "sched/thread.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "base/assert.h"
#include "heap/fastpath.h"
#include "heap/mcache.h"
#include "plat/context.h"
#include "sched/fork.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/park.h"
#include "sched/quiesce.h"
#include "sched/robust.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/tcb.h"
#include "world/record.h"

namespace undergo::sched {

constinit G main_g = {};

namespace {

constexpr uint32_t kFreePerP = 64;
inline Waiter* Ended() { return reinterpret_cast<Waiter*>(1); }  // the thread is over

enum Detached : uint32_t { kJoinable, kDetached, kJoined };

// --- slots ---

// Of the P's free ones, the first whose last thread has left its stack.
G* TakeFree(P* p, uint32_t shift) {
  constexpr int kLooks = 4;
  G** at = &p->free_gs;
  for (int i = 0; i < kLooks && *at != nullptr; ++i, at = &(*at)->next) {
    G* g = *at;
    if (g->slot_shift != shift) return nullptr;  // they are all of one size
    if (LoadAcquire(&g->on_cpu) != 0) continue;  // pairs: FinishSwitch
    *at = g->next;
    p->free_count--;
    return g;
  }
  return nullptr;
}

G* TakeG(uint32_t shift) {
  if (G* self = Current(); self != nullptr) {
    P* p = EnterSched(self);
    G* g = p != nullptr ? TakeFree(p, shift) : nullptr;
    LeaveSched(self);
    if (g != nullptr) return g;
  }
  return TakeSlot(shift);
}

// --- the thread itself ---

// Slots on their way back to their P, or to all. In the scheduler.
void PutFree(P* p, G* g) {
  ForgetThread(g);
  g->state = GState::kIdle;
  bool fits = p != nullptr && !g->user_stack && p->free_count < kFreePerP &&
              (p->free_gs == nullptr || p->free_gs->slot_shift == g->slot_shift);
  if (!fits) return GiveSlot(g);
  g->next = p->free_gs;
  p->free_gs = g;
  p->free_count++;
}

void Recycle(G* g) {
  G* self = Current();
  P* p = self != nullptr ? EnterSched(self) : nullptr;
  PutFree(p, g);
  if (self != nullptr) LeaveSched(self);
}

// Whoever makes this change frees the slot.
bool ClaimEnded(G* g) {
  uint32_t detached = kDetached;
  return CasAcqRel(&g->detached, &detached, kJoined);  // pairs: itself
}

// The last thing a thread does.
[[noreturn]] void End(G* g) {
  if (!Active()) EndPlainThread();
  RunDeferred();  // signals that were sent while it lived
  ReleaseRobust(g);
  P* p = EnterSched(g);
  if (__atomic_sub_fetch(&sched.gcount, 1, __ATOMIC_ACQ_REL) == 0) {
    LeaveSched(g);
    exit(0);
  }
  g->state = GState::kDead;  // before its mask is no longer counted, see TellIdleMs
  if (on_thread_end != nullptr) on_thread_end(g);
  auto* joiner = static_cast<Waiter*>(ExchangeAcqRel(&g->joiner, static_cast<void*>(Ended())));
  // From here on the slot may be free; it is not reused before on_cpu falls.
  if (joiner != nullptr) joiner->EndInScheduler(p);
  if (ClaimEnded(g) && !g->main) PutFree(p, g);
  Schedule(g);
  __builtin_unreachable();
}

// The landing place lasts to the end: handlers and destructors may leave by pthread_exit, too.
[[noreturn]] void Run(G* g) {
  __pthread_unwind_buf_t landing;
  int landed = __sigsetjmp(reinterpret_cast<struct __jmp_buf_tag*>(&landing.__cancel_jmp_buf), 0);
  if (landed != 0) {  // pthread_exit or cancelled: the result is set
    LeaveCallEarly();
  } else {
    __pthread_register_cancel(&landing);
    if (g->c11) {
      auto start = reinterpret_cast<int (*)(void*)>(reinterpret_cast<Addr>(g->start));
      *ResultField(g->fs) = reinterpret_cast<void*>(static_cast<intptr_t>(start(g->arg)));
    } else {
      *ResultField(g->fs) = g->start(g->arg);
    }
  }
  RunDestructors();
  End(g);
}

void Begin(void* arg) {
  auto* g = static_cast<G*>(arg);
  FinishSwitch(g);
  InitLibcOnThread();
  LeaveSched(g);  // handlers of the program may run from here on
  Run(g);
}

// --- making one ---

// A small stack has what was asked for below the thread block, since saving all registers needs
// room that a thread of libc would not; others hold the block themselves, so that a power of two
// fits its slot.
bool IsSmall(const ThreadRequest& r) { return r.stack_size < 64 * kKiB; }

uint32_t ShiftFor(const ThreadRequest& r) {
  size_t beside = BlockSize() + kGSize + kOsPageSize;
  if (r.stack != 0) return SlotShiftFor(beside);  // the program's own holds nothing of ours
  if (IsSmall(r)) return SlotShiftFor(r.stack_size + r.guard_size + beside);
  return SlotShiftFor(r.stack_size + (r.guard_size > kOsPageSize ? r.guard_size : 0));
}

bool FitsBlock(const ThreadRequest& r) {
  constexpr size_t kLeast = 4 * kKiB;  // for the thread itself
  return r.stack != 0 || IsSmall(r) || r.stack_size >= BlockSize() + kGSize + kOsPageSize + kLeast;
}

void SetBounds(G* g, const ThreadRequest& r) {
  g->user_stack = r.stack != 0;
  if (g->user_stack) {
    g->stack_low = r.stack;
    g->stack_high = AlignDown(r.stack + r.stack_size, 16);
    g->stack_size = r.stack_size;
    g->scan_low = g->scan_high = 0;  // a root like all memory of the program
    return;
  }
  g->stack_high = AlignDown(g->fs + kPthreadSize - BlockSize(), 64);
  Addr top = IsSmall(r) ? g->stack_high : SlotEnd(g);
  // An overflow is noticed where it would be natively.
  g->stack_low = AlignDown(top - r.stack_size, kOsPageSize);
  g->stack_low = Max(g->stack_low, SlotBase(g) + r.guard_size);
  if (IsSmall(r)) top = g->stack_high = g->stack_low + AlignDown(r.stack_size, 64);
  g->stack_size = top - g->stack_low;
  g->scan_low = g->stack_low;
  g->scan_high = SlotEnd(g);
}

void Fill(G* g, const ThreadRequest& r) {
  g->start = r.start;
  g->arg = r.arg;
  g->c11 = r.c11;
  g->detached = r.detached ? kDetached : kJoinable;
  g->joiner = nullptr;
  g->policy = r.policy;
  g->priority = r.priority;
  g->wake = 0;
  g->interrupts = 0;
  g->pending = 0;
  g->signals = nullptr;
  g->handling = 0;
  g->waits_for = 0;
  g->wait_pokes = 0;
  g->alt_low = 0;
  g->left_handler = 0;
  g->mask_unsure = false;
  if (g->wishes != nullptr) heap::Free(g->wishes);
  g->wishes = nullptr;
  // As a kernel thread it would have its maker's name.
  G* maker = Self();
  if (maker != nullptr) {
    __builtin_memcpy(g->name, maker->name, sizeof g->name);
  } else {
    plat::Syscall(__NR_prctl, PR_GET_NAME, &g->name[0]);
  }
  g->forked_on = nullptr;
  g->cpu_ns = g->ran_from = 0;
  g->goid = FetchAddRelaxed(&sched.next_goid, 1u);
  DescribeThread(g);
  heap::ThreadWords* w = g->words;
  *w = {};
  w->mcache = &heap::empty_mcache;
  w->busy = w->in_sched = 1;  // until Begin
  w->g = w->self = g;
  g->sp = plat::MakeContext(g->stack_high, Begin, g);
}

}  // namespace

int CreateThread(pthread_t* id, const ThreadRequest& r) {
  if (!FitsBlock(r)) return EINVAL;
  uint32_t shift = ShiftFor(r);
  G* g = shift == 0 ? nullptr : TakeG(shift);
  if (g == nullptr) return EAGAIN;
  AwaitOffCpu(g);
  bool made = MakeBlock(g);
  if (made) SetBounds(g, r);
  if (!made || !SetGuard(g, g->stack_low - r.guard_size, r.stack != 0 ? 0 : r.guard_size)) {
    GiveSlot(g);
    return EAGAIN;
  }
  Fill(g, r);
  uint64_t mask = r.has_mask          ? r.mask
                  : Self() != nullptr ? Self()->mask
                                      : world::CurrentSignalMask();
  g->mask = mask & ~kReservedSignals;
  MaskBorn(g->mask);
  FetchAddAcqRel(&sched.gcount, 1u);  // pairs: EndSysmon
  EnsureSysmon();
  *id = IdOf(g);
  MakeNewReady(g);
  return 0;
}

G* Find(pthread_t id) {
  if (!Active()) return nullptr;
  G* g = id == main_g.fs ? &main_g : SlotOf(id, kPthreadSize);
  return g != nullptr && *TidField(g->fs) > 0 ? g : nullptr;
}

G* FindByTid(int tid) {
  if (!Active()) return nullptr;
  if (tid == main_g.tid) return &main_g;
  for (G* g = FirstSlot(); g != nullptr; g = g->all_next) {
    if (g->tid == tid && g->fs != 0 && LoadRelaxed(TidField(g->fs)) == tid) return g;
  }
  return nullptr;
}

int Join(G* g, void** result, uint64_t deadline, bool try_only) {
  if (g == Self()) return EDEADLK;
  if (LoadAcquire(&g->detached) != kJoinable) return EINVAL;         // pairs: Detach
  if (try_only && LoadAcquire(&g->joiner) != Ended()) return EBUSY;  // pairs: End
  for (;;) {
    Waiter w(WaitReason::kJoin);
    w.Arm();
    void* none = nullptr;
    if (CasAcqRel(&g->joiner, &none, static_cast<void*>(&w))) {  // pairs: End
      Wake why = w.Wait(deadline, true);
      if (why != Wake::kReady) {
        void* mine = &w;
        if (CasAcqRel(&g->joiner, &mine, nullptr)) {  // pairs: End
          return why == Wake::kTimeout ? ETIMEDOUT : EINTR;
        }
        // It has ended meanwhile, and may be about to end this wait: `w` must last until then.
        AwaitOffCpu(g);
      }
      break;
    }
    w.Disarm();
    if (none == Ended()) break;
    return EINVAL;  // somebody else joins it
  }
  uint32_t joinable = kJoinable;
  if (!CasAcqRel(&g->detached, &joinable, kJoined)) return EINVAL;  // pairs: Detach
  if (result != nullptr) *result = *ResultField(g->fs);
  if (g->user_stack) AwaitOffCpu(g);  // the program may use it for something else now
  if (!g->main) Recycle(g);
  return 0;
}

int Detach(G* g) {
  uint32_t joinable = kJoinable;
  if (!CasAcqRel(&g->detached, &joinable, kDetached)) return EINVAL;  // pairs: End, Join
  // It may have ended already.
  if (LoadAcquire(&g->joiner) == Ended() && ClaimEnded(g) && !g->main) Recycle(g);  // pairs: End
  return 0;
}

uint32_t ThreadCount() { return LoadRelaxed(&sched.gcount); }

void ForEachThread(void (*visit)(void* context, G* g), void* context) {
  if (!Active()) return;
  if (main_g.fs != 0 && main_g.state != GState::kDead) visit(context, &main_g);
  for (G* g = FirstSlot(); g != nullptr; g = g->all_next) {
    if (g->fs != 0 && LoadRelaxed(TidField(g->fs)) > 0) visit(context, g);
  }
}

void EndMain() {
  RunDestructors();
  End(&main_g);
}

}  // namespace undergo::sched
