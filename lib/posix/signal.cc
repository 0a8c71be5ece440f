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
#include "heap/restart.h"
#include "plat/real.h"
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
  bool wrap = IsFunction(handler);
  if (wrap) StoreRelease(&handlers[sig], reinterpret_cast<uint64_t>(handler));  // pairs: Trampoline
  sighandler_t old = real(sig, wrap ? AsPlainHandler(Trampoline) : handler);
  if (old == SIG_ERR && wrap) StoreRelease(&handlers[sig], before);  // pairs: Trampoline
  return IsOurs(old) ? Recorded(before) : old;
}

}  // namespace

int sigaction(int sig, const struct sigaction* act, struct sigaction* old) {
  if (real::sigaction == nullptr) real::Resolve();
  if (sig <= 0 || sig >= kSignals) return real::sigaction(sig, act, old);
  uint64_t before = LoadAcquire(&handlers[sig]);  // pairs: the store below
  struct sigaction ours;
  bool wrap = act != nullptr && IsFunction(act->sa_handler);
  if (wrap) {
    ours = *act;
    uint64_t entry = reinterpret_cast<uint64_t>(act->sa_handler);
    if ((act->sa_flags & SA_SIGINFO) != 0) entry |= kSiginfoBit;
    ours.sa_handler = AsPlainHandler(Trampoline);
    ours.sa_flags |= SA_SIGINFO;
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

bool AttendToInterrupt() { return false; }

}  // namespace undergo::posix
