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
// Rejected: kernel rseq for the sequence (one more store in each malloc, and the registration
// belongs to glibc), a compare-and-swap in malloc (measured: 2 ns on a pair of 3.3 ns).
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
#include "posix/posix.h"
#include "world/blocked_call.h"

namespace undergo::posix {

namespace {

using Handler = void (*)(int, siginfo_t*, void*);

constexpr int kSignals = 65;
// The program's handler, and in bit 63 whether it was installed with SA_SIGINFO. Written by the
// thread that installs it, before the kernel knows; read by the trampoline.
constinit uint64_t handlers[kSignals] = {};
constexpr uint64_t kSiginfoBit = uint64_t{1} << 63;

// In the mode `poison` the handler of SIGSEGV is always ours. The program's action is recorded here
// and above, whatever it is, and taken when the fault is not a touch of a dead object.
constinit bool faults_watched = false;
constinit int fault_flags = 0;  // atomic; sa_flags as the program gave them
bool IsWatched(int sig) { return sig == SIGSEGV && faults_watched; }

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
  handler(sig, info, context);
  world::ReturnFromHandler(r, saved);
}

void Trampoline(int sig, siginfo_t* info, void* context) {
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  registers[REG_RIP] =
      static_cast<greg_t>(heap::RestartPoint(static_cast<Addr>(registers[REG_RIP])));
  auto handler = reinterpret_cast<Handler>(LoadAcquire(&handlers[sig]) & ~kSiginfoBit);
  if (UNDERGO_UNLIKELY(IsWatched(sig))) {
    if (ClaimFault(info, registers)) return;
    auto action = reinterpret_cast<sighandler_t>(reinterpret_cast<void*>(handler));
    if (action == SIG_IGN && info->si_code <= 0) return;
    if (action == SIG_DFL || action == SIG_IGN) return TakeDefaultAction(sig, info);
    if ((LoadRelaxed(&fault_flags) & SA_RESETHAND) != 0) StoreRelease(&handlers[sig], uint64_t{0});
  }
  world::Record* r = world::InBlockedCall();
  if (UNDERGO_UNLIKELY(r != nullptr)) return RunInBlockedCall(r, handler, sig, info, context);
  world::WaitOutStop();
  return handler(sig, info, context);
}

sighandler_t AsPlainHandler(Handler h) {
  return reinterpret_cast<sighandler_t>(reinterpret_cast<void*>(h));
}

bool IsFunction(sighandler_t h) {
  return h != SIG_DFL && h != SIG_IGN && h != SIG_ERR && h != SIG_HOLD;
}
bool IsOurs(sighandler_t h) { return h == AsPlainHandler(Trampoline); }

sighandler_t Recorded(uint64_t entry) {
  return reinterpret_cast<sighandler_t>(entry & ~kSiginfoBit);
}

// The simple installers all work alike: swap the handler, translate what comes back.
sighandler_t Install(sighandler_t (*real)(int, sighandler_t), int sig, sighandler_t handler) {
  if (sig <= 0 || sig >= kSignals || real == nullptr) {
    errno = EINVAL;
    return SIG_ERR;
  }
  uint64_t before = LoadAcquire(&handlers[sig]);  // pairs: the store below
  bool wrap = IsFunction(handler) || IsWatched(sig);
  if (IsWatched(sig)) StoreRelaxed(&fault_flags, 0);
  if (wrap) StoreRelease(&handlers[sig], reinterpret_cast<uint64_t>(handler));  // pairs: Trampoline
  sighandler_t old = real(sig, wrap ? AsPlainHandler(Trampoline) : handler);
  if (old == SIG_ERR && wrap) StoreRelease(&handlers[sig], before);  // pairs: Trampoline
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

int sigaction(int sig, const struct sigaction* act, struct sigaction* old) {
  if (real::sigaction == nullptr) real::Resolve();
  if (sig <= 0 || sig >= kSignals) return real::sigaction(sig, act, old);
  uint64_t before = LoadAcquire(&handlers[sig]);  // pairs: the store below
  struct sigaction ours;
  bool watched = IsWatched(sig);
  bool wrap = act != nullptr && (IsFunction(act->sa_handler) || watched);
  int flags_before = LoadRelaxed(&fault_flags);
  if (wrap) {
    ours = *act;
    uint64_t entry = reinterpret_cast<uint64_t>(act->sa_handler);
    if ((act->sa_flags & SA_SIGINFO) != 0) entry |= kSiginfoBit;
    ours.sa_handler = AsPlainHandler(Trampoline);
    ours.sa_flags |= SA_SIGINFO;
    if (watched) {
      StoreRelaxed(&fault_flags, act->sa_flags);
      ours.sa_flags &= ~SA_RESETHAND;
    }
    act = &ours;
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
    if (watched) old->sa_flags = flags_before;
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
UNDERGO_INSTALLER(sigset)

bool AttendToInterrupt(Restart) { return false; }

}  // namespace undergo::posix
