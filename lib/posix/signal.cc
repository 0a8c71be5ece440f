// SPDX-License-Identifier: Apache-2.0
// Signal handlers behind a wrapper, so that they may allocate.
//
// malloc takes a slot by a load and a store a few instructions later (heap/fastpath.h). A handler
// that allocates in between would be handed the same slot. The kernel calls Trampoline instead of
// the program's handler; if the interrupted instruction lies inside such a sequence, its saved
// instruction pointer is set back to the start, as the kernel does for restartable sequences. The
// sequence has no side effect before its last instruction. Then the handler runs with the arguments
// of the kernel, by a jump, so that backtraces look as without us; by a call if it interrupts a
// wrapped blocking call, which has to be left meanwhile.
//
// What the program reads back by sigaction() is what it set. Signals whose action is default or
// ignore never pass through here. Handlers installed by a raw system call are not wrapped.
//
// On a thread of the scheduler (signal_deliver.cc tells who gets what) the trampoline also
//  * holds the signal back in the middle of the scheduler and while the thread waits;
//  * keeps G::mask in step, so that a handler may be switched and go on on another M. The frame
//  that
//    it returns to is free of the kernel thread; mask and alternate stack in it belong to the G.
// A handler in a blocking call stays on its M, without a P: the call's record is that M's. One that
// interrupts the library itself stays, too: there the M's mcache may be in use. How a handler jumps
// away stands in jump.cc.
//
// Rejected: kernel rseq for the sequence (one more store in each malloc, and the registration
// belongs to glibc), a compare-and-swap in malloc (measured: 2 ns on a pair of 3.3 ns).
#include "posix/signal.h"

#include <errno.h>
#include <ucontext.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "heap/arena.h"
#include "heap/poison.h"
#include "heap/restart.h"
#include "plat/backtrace.h"
#include "plat/real.h"
#include "plat/syscall.h"
#include "posix/dump_signal.h"
#include "posix/jump.h"
#include "posix/posix.h"
#include "posix/timer.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/overflow.h"
#include "sched/park.h"
#include "sched/preempt.h"
#include "sched/sched.h"
#include "sched/sysmon.h"
#include "sched/thread.h"
#include "world/blocked_call.h"
#include "world/foreign.h"
#include "world/stop.h"

namespace undergo::posix {

namespace {

using Handler = void (*)(int, siginfo_t*, void*);

constexpr int kSignals = kSignalCount;
constexpr uint32_t kSsAutodisarm = 1u << 31;
// The program's handler, and in bit 63 whether it was installed with SA_SIGINFO. Written by the
// thread that installs it, before the kernel knows; read by the trampoline.
constinit uint64_t handlers[kSignals] = {};
constexpr uint64_t kSiginfoBit = uint64_t{1} << 63;
// Bit 62: the kernel may not have been told yet that the trampoline wants a siginfo.
constexpr uint64_t kBareBit = uint64_t{1} << 62;
// Bit 61: for one call (SA_RESETHAND). Ours to see to with the scheduler: the kernel counts one
// that is held back and sent again twice, and the second one would end the program.
constexpr uint64_t kOneShotBit = uint64_t{1} << 61;
// Bit 60: with SA_ONSTACK, which the kernel is not told while it can mean our own stacks only
// (sched/overflow.h).
constexpr uint64_t kOnStackBit = uint64_t{1} << 60;
constexpr uint64_t kEntryBits = kSiginfoBit | kBareBit | kOneShotBit | kOnStackBit;

// In the mode `poison` the handler of SIGSEGV is always ours. The program's action is recorded here
// and above, whatever it is, and taken when the fault is not a touch of a dead object.
constinit bool faults_watched = false;
constinit int fault_flags = 0;  // atomic; sa_flags as the program gave them
bool IsWatched(int sig) { return sig == SIGSEGV && faults_watched; }

// What runs instead of default actions; null: those.
constinit DefaultAction replacements[kSignals] = {};  // atomic
constinit int default_flags[kSignals] = {};           // atomic; sa_flags that came with SIG_DFL
constinit int dump_signal = 0;  // whose action is to be replaced with the first thread
constinit DefaultAction dump_action = nullptr;
constinit bool has_alt_stacks = false;  // the program has had one
bool IsReplaced(int sig, sighandler_t handler) {
  return handler == SIG_DFL && LoadRelaxed(&replacements[sig]) != nullptr;
}

bool ClaimFault(siginfo_t* info, const greg_t* registers) {
  constexpr uint32_t kFrames = 8;
  if (info->si_code <= 0 || !heap::InArena(info->si_addr)) return false;
  Addr pcs[kFrames];
  uint32_t frames = plat::BacktraceFrom(static_cast<Addr>(registers[REG_RIP]),
                                        static_cast<Addr>(registers[REG_RSP]),
                                        static_cast<Addr>(registers[REG_RBP]), pcs, kFrames);
  return heap::ClaimFault(reinterpret_cast<Addr>(info->si_addr), pcs, frames);
}

// What the kernel would do without our handler: the program dies of the signal. A fault comes again
// when its instruction is repeated, a signal that was sent must be sent again.
void TakeDefaultAction(int sig, const siginfo_t* info) {
  const uint64_t action[4] = {};
  plat::Syscall(__NR_rt_sigaction, sig, &action[0], nullptr, 8);
  if (info->si_code > 0) return;
  plat::Syscall(__NR_tgkill, plat::Syscall(__NR_getpid), plat::Syscall(__NR_gettid), sig);
}

// A thread in a blocking call counts as stopped (world/blocked_call.h), the handler does not.
UNDERGO_NOINLINE void RunInBlockedCall(world::Record* r, Handler handler, int sig, siginfo_t* info,
                                       void* context) {
  Addr saved = world::LeaveForHandler(r);
  void* g = heap::thread_words.g;
  heap::thread_words.g = nullptr;  // it stays on the kernel thread that the record belongs to
  handler(sig, info, context);
  heap::thread_words.g = g;
  world::ReturnFromHandler(r, saved);
}

void RunOnThread(Handler handler, int sig, siginfo_t* info, void* context) {
  world::Record* r = world::InBlockedCall();
  if (UNDERGO_UNLIKELY(r != nullptr)) return RunInBlockedCall(r, handler, sig, info, context);
  world::WaitOutStop();
  return handler(sig, info, context);
}

// Caused by the thread's own instruction, so that nothing can wait.
bool IsFault(int sig, const siginfo_t* info) {
  switch (sig) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS: return info->si_code > 0;
    default: return false;
  }
}

// The handler is about to run. Flags become what the program gave.
void TakeOneShot(int sig) {
  uint64_t entry = LoadAcquire(&handlers[sig]);  // pairs: sigaction, Install
  if (UNDERGO_LIKELY((entry & kOneShotBit) == 0)) return;
  SignalAction action = ActionOf(sig);
  if (!IsWrapped(action)) return;
  action.handler = reinterpret_cast<Addr>(SIG_DFL);
  if ((entry & kSiginfoBit) == 0) action.flags &= ~uint64_t{SA_SIGINFO};
  action.flags |= static_cast<uint32_t>(SA_RESETHAND);
  plat::Syscall(__NR_rt_sigaction, sig, &action, nullptr, sizeof(uint64_t));
}

uint64_t* MaskIn(ucontext_t* c) { return reinterpret_cast<uint64_t*>(&c->uc_sigmask); }

// The program has not set the M's own one (sched/overflow.h), and the G may go to another M.
void HideOwnAltStack(ucontext_t* c) {
  if (sched::IsOwnAltStack(c->uc_stack)) c->uc_stack = {nullptr, SS_DISABLE, 0};
}

// Not the whole of uc_stack: flags of the state are in it.
void TakeAltStack(G* g, const stack_t& s) {
  bool on = (s.ss_flags & SS_DISABLE) == 0 && s.ss_size != 0;
  g->alt_low = on ? reinterpret_cast<Addr>(s.ss_sp) : 0;
  g->alt_size = s.ss_size;
  g->alt_flags = s.ss_flags & static_cast<int>(kSsAutodisarm);
  g->m->alt_low = g->alt_low;
}

// The handler's mask becomes the G's. Returns whether the action restarts calls.
bool EnterHandler(G* g, int sig, ucontext_t* c) {
  heap::BusyScope stay;
  SignalAction action = ActionOf(sig);
  uint64_t now = world::CurrentSignalMask();
  uint64_t inside = now | action.mask;
  if ((action.flags & SA_NODEFER) == 0) inside |= Bit(sig);
  if ((inside & ~sched::kReservedSignals) != (now & ~sched::kReservedSignals)) {
    world::SetSignalMask(inside);  // it was switched on its way here
  }
  sched::SetMaskOf(g, inside);
  StoreRelaxed(&g->handling, g->handling | (inside & ~*MaskIn(c)));
  if ((c->uc_stack.ss_flags & static_cast<int>(kSsAutodisarm)) != 0) g->alt_low = g->m->alt_low = 0;
  HideOwnAltStack(c);
  return (action.flags & SA_RESTART) != 0;
}

// Makes the kernel's sigreturn and the G's fields agree. From here on the G stays on its M.
void LeaveHandler(G* g, ucontext_t* c) {
  world::SetSignalMask(~uint64_t{0});
  uint64_t back = *MaskIn(c);
  sched::SetMaskOf(g, back);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: SendToAny
  g->left_handler = static_cast<Addr>(c->uc_mcontext.gregs[REG_RIP]);
  TakeAltStack(g, c->uc_stack);
  if (g->alt_low == 0) c->uc_stack = sched::AltStackOf(g->m);  // of the M that it has come to
  if (UNDERGO_UNLIKELY((LoadRelaxed(&g->pending) & ~back) != 0)) PokeAfterHandler(g, back);
}

// The trampoline did nothing for g. But a handler in the middle of it may have, and took for g's
// mask the one that the kernel had set for this signal.
void LeaveUnhandled(G* g, ucontext_t* c) {
  if (g->g0 || sched::Self() != g) return;
  HideOwnAltStack(c);
  LeaveHandler(g, c);
}

void RunOnG(G* g, Handler handler, int sig, siginfo_t* info, ucontext_t* c) {
  bool restarts = EnterHandler(g, sig, c);
  heap::ThreadWords& w = heap::thread_words;
  uint32_t handled = w.handled;
  // The stack is the M's, or what was interrupted may be: a malloc has the address of its mcache in
  // a register.
  auto ip = static_cast<Addr>(c->uc_mcontext.gregs[REG_RIP]);
  bool stays = w.g != nullptr && (sched::OnOwnAltStack(g->m) || sched::InOwnText(ip));
  if (UNDERGO_UNLIKELY(stays)) w.g = nullptr;
  RunOnThread(handler, sig, info, c);
  if (UNDERGO_UNLIKELY(stays) && sched::Active()) w.g = g;
  w.handled =
      handled | heap::kHandlerRan | (restarts ? 0u : uint32_t{heap::kHandlerWithoutRestart});
  // In a child that the handler forked nothing of it is left.
  if (sched::Active() && sched::Self() == g) LeaveHandler(g, c);
}

// In the middle of the scheduler, or with a Waiter in a queue.
void HoldBack(G* g, int sig, const siginfo_t* info, ucontext_t* c) {
  heap::ThreadWords& w = heap::thread_words;
  bool poke = IsPoke(info);
  if (g != nullptr && g->g0 && w.busy == 0) {
    if (poke) return;
    // An idle M asleep: it holds no lock.
    Hold(sig, *info, kAnybody);
    world::Record* r = world::InBlockedCall();
    Addr saved = r != nullptr ? world::LeaveForHandler(r) : 0;
    OnSchedEnd(g);
    if (r != nullptr) world::ReturnFromHandler(r, saved);
    *MaskIn(c) |= g->m->mask;
    return;
  }
  if (!poke) {
    Hold(sig, *info, g != nullptr ? kAnybody : static_cast<int>(plat::Syscall(__NR_gettid)));
  }
  StoreRelaxed(&w.deferred, 1u);
  if (w.waiter != nullptr) static_cast<sched::Waiter*>(w.waiter)->Disturb();
}

UNDERGO_NOINLINE void OnScheduled(Handler handler, int sig, siginfo_t* info, ucontext_t* c) {
  heap::ThreadWords& w = heap::thread_words;
  G* g = sched::Self();
  if (g != nullptr && !IsOnOwnM(g)) {
    TakeOneShot(sig);
    return RunOnThread(handler, sig, info, c);
  }
  bool fault = IsFault(sig, info);
  if (!fault && (w.in_sched != 0 || w.waiter != nullptr)) return HoldBack(g, sig, info, c);
  if (IsPoke(info)) {
    if (g == nullptr) return;
    if (!TakePoked(g, sig, info)) return LeaveUnhandled(g, c);
  } else if (UNDERGO_UNLIKELY(info->si_code == SI_TIMER)) {
    G* named = ThreadOfTimer(*info);
    if (named != nullptr && named != g) {
      SendTo(named, sig, *info);
      if (g != nullptr) LeaveUnhandled(g, c);
      return;
    }
  }
  TakeOneShot(sig);
  if (g != nullptr && !g->g0) return RunOnG(g, handler, sig, info, c);
  uint32_t handled = w.handled;
  bool restarts = (ActionOf(sig).flags & SA_RESTART) != 0;
  RunOnThread(handler, sig, info, c);
  w.handled =
      handled | heap::kHandlerRan | (restarts ? 0u : uint32_t{heap::kHandlerWithoutRestart});
}

void Handle(int sig, siginfo_t* info, ucontext_t* c) {
  auto* registers = c->uc_mcontext.gregs;
  registers[REG_RIP] =
      static_cast<greg_t>(heap::RestartPoint(static_cast<Addr>(registers[REG_RIP])));
  uint64_t entry = LoadAcquire(&handlers[sig]);  // pairs: sigaction, Install
  auto handler = reinterpret_cast<Handler>(entry & ~kEntryBits);
  siginfo_t plain;
  if (UNDERGO_UNLIKELY((entry & kBareBit) != 0)) {
    plain = SelfInfo(sig, SI_USER);
    info = &plain;
  }
  Undisguise(info);
  if (UNDERGO_UNLIKELY(IsWatched(sig))) {
    if (ClaimFault(info, registers)) return;
    auto action = reinterpret_cast<sighandler_t>(reinterpret_cast<void*>(handler));
    if (action == SIG_IGN && info->si_code <= 0) return;
    if (action == SIG_DFL || action == SIG_IGN) return TakeDefaultAction(sig, info);
    if ((LoadRelaxed(&fault_flags) & SA_RESETHAND) != 0) StoreRelease(&handlers[sig], uint64_t{0});
  }
  if (UNDERGO_UNLIKELY(handler == nullptr)) {
    handler = LoadRelaxed(&replacements[sig]);
    if (handler == nullptr) return;  // changed just now
    // It needs nothing of the thread, and answers also when no thread can run. Except that a poke
    // must be taken out of its queue.
    if (!IsPoke(info)) return handler(sig, info, c);
  }
  if (UNDERGO_UNLIKELY(sched::Active())) return OnScheduled(handler, sig, info, c);
  TakeOneShot(sig);
  return RunOnThread(handler, sig, info, c);
}

// On a stopped thread, which has left SIGCHLD unblocked since the program had no handler for it
// until a moment ago (world/signal.cc): it comes again when the thread goes on.
bool PutOff(int sig, const siginfo_t* info, ucontext_t* c) {
  if (sig != SIGCHLD || (*MaskIn(c) & Bit(world::kStopSignal)) == 0) return false;
  *MaskIn(c) |= Bit(sig);
  SendReal(static_cast<int>(plat::Syscall(__NR_gettid)), sig, *info);
  return true;
}

// What the kernel calls.
void Trampoline(int sig, siginfo_t* info, void* context) {
  auto* c = static_cast<ucontext_t*>(context);
  if (UNDERGO_UNLIKELY(PutOff(sig, info, c))) return;
  // A slow path that faults, or aborts, cannot go on.
  bool ends = IsFault(sig, info) || sig == SIGABRT;
  if (UNDERGO_LIKELY(!InterruptsSlowPath() || ends)) return Handle(sig, info, c);
  SlowPathNote note(c);
  Handle(sig, info, c);
}

sighandler_t AsPlainHandler(Handler h) {
  return reinterpret_cast<sighandler_t>(reinterpret_cast<void*>(h));
}

bool IsFunction(sighandler_t h) {
  return h != SIG_DFL && h != SIG_IGN && h != SIG_ERR && h != SIG_HOLD;
}
bool IsOurs(sighandler_t h) { return h == AsPlainHandler(Trampoline); }

sighandler_t Recorded(uint64_t entry) {
  return reinterpret_cast<sighandler_t>(entry & ~kEntryBits);
}

// The kernel writes a siginfo for handlers with SA_SIGINFO alone; what it leaves in the frame of
// others is anything. Returns the bits for the handler's entry.
uint64_t AskForSiginfo(int sig) {
  SignalAction action = ActionOf(sig);
  if (!IsWrapped(action)) return 0;  // somebody else was faster
  bool one_shot = (action.flags & SA_RESETHAND) != 0;
  // The kernel would show the flag when it has taken the handler back.
  if (one_shot && !sched::Configured()) return 0;
  action.flags |= SA_SIGINFO;
  if (one_shot) action.flags &= ~static_cast<uint64_t>(static_cast<uint32_t>(SA_RESETHAND));
  plat::Syscall(__NR_rt_sigaction, sig, &action, nullptr, sizeof(uint64_t));
  return one_shot ? kOneShotBit : 0;
}

// The simple installers all work alike: swap the handler, translate what comes back.
sighandler_t Install(sighandler_t (*real)(int, sighandler_t), int sig, sighandler_t handler) {
  if (sig <= 0 || sig >= kSignals || real == nullptr) {
    errno = EINVAL;
    return SIG_ERR;
  }
  if (UNDERGO_UNLIKELY(IsReplaced(sig, handler))) {
    struct sigaction act = {}, old;
    return posix::sigaction(sig, &act, &old) == 0 ? old.sa_handler : SIG_ERR;
  }
  uint64_t before = LoadAcquire(&handlers[sig]);  // pairs: the store below
  bool wrap = IsFunction(handler) || IsWatched(sig);
  auto entry = reinterpret_cast<uint64_t>(handler);
  if (IsWatched(sig)) StoreRelaxed(&fault_flags, 0);
  if (wrap && sig == SIGCHLD) world::BlockChildSignal();
  if (wrap) StoreRelease(&handlers[sig], entry | kBareBit);  // pairs: Trampoline
  sighandler_t old = real(sig, wrap ? AsPlainHandler(Trampoline) : handler);
  if (wrap) {
    if (old != SIG_ERR) entry |= AskForSiginfo(sig);
    StoreRelease(&handlers[sig], old != SIG_ERR ? entry : before);  // pairs: Trampoline
  }
  return IsOurs(old) ? Recorded(before) : old;
}

}  // namespace

void WatchFaults() {
  if (real::sigaction == nullptr) real::Resolve();
  struct sigaction ours = {};
  ours.sa_sigaction = Trampoline;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  struct sigaction old;
  if (real::sigaction(SIGSEGV, nullptr, &old) != 0 || old.sa_handler == SIG_IGN) old.sa_flags = 0;
  StoreRelease(&handlers[SIGSEGV],
               reinterpret_cast<uint64_t>(old.sa_handler));  // pairs: Trampoline
  faults_watched = true;
  real::sigaction(SIGSEGV, &ours, nullptr);
}

namespace {

void SetReplacement(int sig, struct sigaction* ours) {
  StoreRelaxed(&default_flags[sig], ours->sa_flags & ~SA_SIGINFO);
  ours->sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  __builtin_memcpy(&ours->sa_mask, &world::kAllButStopSignal, sizeof world::kAllButStopSignal);
}

}  // namespace

namespace {

void Replace(int sig, DefaultAction action) {
  if (LoadRelaxed(&replacements[sig]) != nullptr) return;
  if (real::sigaction == nullptr) real::Resolve();
  StoreRelaxed(&replacements[sig], action);
  struct sigaction now;
  if (real::sigaction(sig, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) return;
  posix::sigaction(sig, &now, nullptr);
}

bool HasDefaultAction(int sig) { return ActionOf(sig).handler == reinterpret_cast<Addr>(SIG_DFL); }

void OnFault(int sig, siginfo_t* info, void*) {
  if (sched::Active()) sched::TellOverflow(info);
  TakeDefaultAction(sig, info);
}

}  // namespace

void ReplaceDefaultAction(int sig, DefaultAction action, bool now) {
  dump_signal = sig;
  dump_action = action;
  if (now) WatchDumpSignal();
}

void WatchDumpSignal() {
  if (dump_action == nullptr) return;
  DefaultAction action = dump_action;
  dump_action = nullptr;
  world::MarkOwnMemory();  // the handler asks whose it is
  Replace(dump_signal, action);
}

uint64_t ReplacedSignals() {
  uint64_t set = 0;
  for (int sig = 1; sig < kSignals; ++sig) {
    if (LoadRelaxed(&replacements[sig]) == nullptr) continue;
    bool programs = (LoadAcquire(&handlers[sig]) & ~kEntryBits) != 0;  // pairs: sigaction
    if (!programs && IsWrapped(ActionOf(sig))) set |= Bit(sig);
  }
  return set;
}

void WatchOverflows() {
  if (sched::Active() || has_alt_stacks || faults_watched || !HasDefaultAction(SIGSEGV)) return;
  stack_t stack = {};
  plat::Syscall(__NR_sigaltstack, nullptr, &stack);
  if ((stack.ss_flags & SS_DISABLE) == 0) return;
  for (int sig = 1; sig < kSignals; ++sig) {
    if ((Bit(sig) & sched::kReservedSignals) == 0 && !HasDefaultAction(sig) && sig != dump_signal &&
        (ActionOf(sig).flags & SA_ONSTACK) != 0) {
      return;
    }
  }
  sched::own_alt_stacks = true;
  Replace(SIGSEGV, OnFault);
}

void LeaveAltStacksToProgram() {
  has_alt_stacks = true;
  if (!sched::own_alt_stacks) return;
  sched::own_alt_stacks = false;
  for (int sig = 1; sig < kSignals; ++sig) {
    uint64_t entry = LoadAcquire(&handlers[sig]);  // pairs: sigaction
    if ((entry & kOnStackBit) == 0) continue;
    SignalAction action = ActionOf(sig);
    if (!IsWrapped(action)) continue;
    action.flags |= SA_ONSTACK;
    plat::Syscall(__NR_rt_sigaction, sig, &action, nullptr, sizeof(uint64_t));
  }
}

int sigaction(int sig, const struct sigaction* act, struct sigaction* old) {
  if (real::sigaction == nullptr) real::Resolve();
  if (sig <= 0 || sig >= kSignals) return real::sigaction(sig, act, old);
  uint64_t before = LoadAcquire(&handlers[sig]);  // pairs: the store below
  struct sigaction ours;
  bool watched = IsWatched(sig);
  bool replaced = act != nullptr && IsReplaced(sig, act->sa_handler);
  bool wrap = act != nullptr && (IsFunction(act->sa_handler) || watched || replaced);
  int flags_before = LoadRelaxed(watched ? &fault_flags : &default_flags[sig]);
  if (wrap) {
    ours = *act;
    uint64_t entry = reinterpret_cast<uint64_t>(act->sa_handler);
    if ((act->sa_flags & SA_SIGINFO) != 0) entry |= kSiginfoBit;
    ours.sa_handler = AsPlainHandler(Trampoline);
    ours.sa_flags |= SA_SIGINFO;
    if (watched) StoreRelaxed(&fault_flags, act->sa_flags);
    bool one_shot = (act->sa_flags & SA_RESETHAND) != 0 && (watched || sched::Configured());
    if (one_shot) ours.sa_flags &= ~SA_RESETHAND;
    if (one_shot && !watched) entry |= kOneShotBit;
    if (replaced) {
      SetReplacement(sig, &ours);
    } else if (sched::own_alt_stacks && !watched && (act->sa_flags & SA_ONSTACK) != 0) {
      entry |= kOnStackBit;
      ours.sa_flags &= ~SA_ONSTACK;
    }
    act = &ours;
    if (sig == SIGCHLD) world::BlockChildSignal();
    StoreRelease(&handlers[sig], entry);  // pairs: Trampoline
  }
  int result = real::sigaction(sig, act, old);
  if (result != 0) {
    if (wrap) StoreRelease(&handlers[sig], before);  // pairs: Trampoline
    return result;
  }
  if (old != nullptr && IsOurs(old->sa_handler)) {
    old->sa_handler = Recorded(before);
    if ((before & kSiginfoBit) == 0) old->sa_flags &= ~SA_SIGINFO;
    if ((before & kOneShotBit) != 0) old->sa_flags |= SA_RESETHAND;
    if ((before & kOnStackBit) != 0) old->sa_flags |= SA_ONSTACK;
    if (watched || (before & ~kEntryBits) == 0) old->sa_flags = flags_before;
    if ((before & ~kEntryBits) == 0) sigemptyset(&old->sa_mask);
  }
  return 0;
}

int __sigaction(int sig, const struct sigaction* act, struct sigaction* old) {
  return posix::sigaction(sig, act, old);
}

#define UNDERGO_INSTALLER(name)                      \
  sighandler_t name(int sig, sighandler_t handler) { \
    if (real::name == nullptr) real::Resolve();      \
    return Install(real::name, sig, handler);        \
  }
UNDERGO_INSTALLER(signal)
UNDERGO_INSTALLER(ssignal)
UNDERGO_INSTALLER(bsd_signal)
UNDERGO_INSTALLER(sysv_signal)
UNDERGO_INSTALLER(__sysv_signal)

// It blocks the signal, or not any more, as well.
sighandler_t sigset(int sig, sighandler_t handler) {
  if (real::sigset == nullptr) real::Resolve();
  G* g = sched::Active() ? sched::Self() : nullptr;
  if (g == nullptr || g->g0 || !IsOnOwnM(g)) return Install(real::sigset, sig, handler);
  sighandler_t old;
  {
    heap::BusyScope stay;
    old = Install(real::sigset, sig, handler);
    sched::SetMaskOf(g, world::CurrentSignalMask());
    if ((LoadRelaxed(&g->pending) & ~g->mask) != 0) StoreRelaxed(&g->words->deferred, 1u);
  }
  sched::RunDeferred();
  return old;
}

bool IsOnOwnM(const G* g) {
  return g->m != nullptr && g->m->tid == static_cast<int>(plat::Syscall(__NR_gettid));
}

bool IsWrapped(const SignalAction& action) {
  return action.handler == reinterpret_cast<Addr>(Trampoline);
}

// --- wiring ---

namespace {

void OnThreadEnd(G* g) {
  {
    SignalSection section;
    sched::MaskGone(g->mask);
    g->mask = ~sched::kReservedSignals;
    g->alt_low = 0;
    PassOn(g);
  }
  CheckIdleMs();
  StoreRelaxed(&heap::thread_words.deferred, 1u);
}

}  // namespace

void OnForked(G* g) {
  ForgetQueues(g);
  ResetWishesAfterFork();
}

void InstallSignals() {
  sched::on_sched_end = OnSchedEnd;
  sched::on_thread_end = OnThreadEnd;
  sched::take_signals = TakeProcessSignals;
  sched::on_adopted = TakePendingOfThread;
  sched::on_call_end = EndSignalWait;
  sched::on_forked = OnForked;
  heap::on_jump = JumpNow;
}

}  // namespace undergo::posix
