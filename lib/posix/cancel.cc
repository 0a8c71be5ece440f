// SPDX-License-Identifier: Apache-2.0
// pthread_cancel.
//
// glibc's cancellation works by the thread block, so state, type, pthread_testcancel and unwinding
// are libc's own. Only the way to the thread is ours: the bits are set, a wait ends (who waits
// looks at them), and a thread that is in one of libc's cancellation points, which have made it
// asynchronous for the time of a system call, gets SIGCANCEL on its M. The handler of that signal
// stands before libc's: in the middle of the scheduler it has to wait, and bits are set already.
// Plain threads are cancelled by libc.
#include <errno.h>

#include "plat/syscall.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "posix/signal_mask.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/park.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/tcb.h"
#include "sched/thread.h"
#include "world/world.h"

namespace undergo::posix {

namespace {

constexpr int kCancelSignal = 32;
using Handler = void (*)(int, siginfo_t*, void*);

constinit Addr libcs_handler = 0;  // atomic; 0: it has installed none yet

bool WantsNow(G* g) {
  constexpr uint32_t kAll = sched::kCancelDisabled | sched::kCancelAsync | sched::kCanceled |
                            sched::kExiting | sched::kTerminated;
  uint32_t bits = LoadAcquire(sched::CancelField(g->fs)) & kAll;  // pairs: pthread_cancel
  return bits == (sched::kCancelAsync | sched::kCanceled);
}

void OnCancelSignal(int sig, siginfo_t* info, void* context) {
  G* g = SignalSelf();
  if (g == nullptr) {
    Addr chained = LoadAcquire(&libcs_handler);  // pairs: EnsureHandler
    if (chained != 0 && sched::Self() == nullptr) {
      reinterpret_cast<Handler>(chained)(sig, info, context);
    }
    return;
  }
  heap::ThreadWords& w = heap::thread_words;
  if (w.in_sched != 0 || w.waiter != nullptr || w.busy != 0) {
    StoreRelaxed(&w.deferred, 1u);
    if (w.waiter != nullptr) static_cast<sched::Waiter*>(w.waiter)->Disturb();
    return;
  }
  CheckCancel(g);
}

// Ours stands before libc's, which appears with the first cancellation of a plain thread.
void EnsureHandler() {
  SignalAction now = ActionOf(kCancelSignal);
  auto ours = reinterpret_cast<Addr>(OnCancelSignal);
  if (now.handler == ours) return;
  StoreRelease(&libcs_handler, now.handler);  // pairs: OnCancelSignal
  constexpr uint64_t kSaRestorer = 0x04000000;
  // Unwinding out of the handler must not leave the signal blocked on the M.
  constexpr uint64_t kFlags = SA_SIGINFO | SA_RESTART | SA_NODEFER | kSaRestorer;
  SignalAction action = {ours, kFlags, world::SigReturn(), 0};
  plat::Syscall(__NR_rt_sigaction, kCancelSignal, &action, nullptr, sizeof(uint64_t));
}

}  // namespace

void CheckCancel(G* g) {
  if (UNDERGO_LIKELY(!WantsNow(g))) return;
  sched::LeaveCallEarly();
  pthread_testcancel();
}

int pthread_cancel(pthread_t thread) {
  if (real::pthread_cancel == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) {
    bool ended = sched::Active() && sched::SlotOf(thread, sched::kPthreadSize) != nullptr;
    return ended ? ESRCH : real::pthread_cancel(thread);
  }
  if (g->state == sched::GState::kDead) return 0;
  EnsureHandler();
  uint32_t* bits = sched::CancelField(g->fs);
  uint32_t before = LoadAcquire(bits);  // pairs: itself
  uint32_t after;
  do {
    after = before | sched::kCanceling | sched::kCanceled;
    if (before == after || (before & sched::kExiting) != 0) return 0;
  } while (!CasAcqRel(bits, &before, after));  // pairs: WantsNow
  if (g == sched::Self()) {
    CheckCancel(g);
    return 0;
  }
  StoreRelease(&g->words->deferred, 1u);  // pairs: OnSchedEnd
  if (sched::Interrupt(g)) return 0;
  if ((after & (sched::kCancelAsync | sched::kCancelDisabled)) != sched::kCancelAsync) return 0;
  sched::M* m = g->m;
  if (m != nullptr) SendReal(m->tid, kCancelSignal, SelfInfo(kCancelSignal, SI_TKILL));
  return 0;
}

}  // namespace undergo::posix
