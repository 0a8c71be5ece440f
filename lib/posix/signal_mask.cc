// SPDX-License-Identifier: Apache-2.0
// Masks of threads with a G, and waits under another mask.
//
// The kernel has the mask of the M; G::mask is the same while the G runs. Both change in one
// section in the scheduler, so that the G is on the same M before and after. What became pending
// meanwhile is delivered at the section's end, before the call returns.
#include "posix/signal_mask.h"

#include <errno.h>

#include "plat/syscall.h"
#include "posix/blocking.h"
#include "posix/signal.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/sched.h"
#include "world/blocked_call.h"
#include "world/record.h"

namespace undergo::posix {

namespace {

constexpr uint64_t kUnblockable = Bit(SIGKILL) | Bit(SIGSTOP);

uint64_t WordOf(const sigset_t* set) {
  uint64_t word;
  __builtin_memcpy(&word, set, sizeof word);
  return word;
}

void SetWord(sigset_t* set, uint64_t word) {
  sigemptyset(set);
  __builtin_memcpy(set, &word, sizeof word);
}

// Outside of a section. What waits for the new mask comes now, and first what was sent before it.
void ChangeMask(G* g, uint64_t mask) {
  sched::RunDeferred();
  mask &= ~(kUnblockable | sched::kReservedSignals);
  {
    SignalSection section;
    sched::SetMaskOf(g, mask);
    world::SetSignalMask(mask);
    if ((LoadRelaxed(&g->pending) & ~mask) != 0) StoreRelaxed(&g->words->deferred, 1u);
  }
  CheckIdleMs();
  sched::RunDeferred();
}

// An error number.
int Change(G* g, int how, const sigset_t* set, sigset_t* old) {
  uint64_t before = g->mask;
  if (set != nullptr) {
    uint64_t word = WordOf(set);
    switch (how) {
      case SIG_BLOCK: word = before | word; break;
      case SIG_UNBLOCK: word = before & ~word; break;
      case SIG_SETMASK: break;
      default: return EINVAL;
    }
    ChangeMask(g, word);
  }
  if (old != nullptr) SetWord(old, before);
  return 0;
}

template <auto* kReal>
auto Real() {
  if (*kReal == nullptr) real::Resolve();
  return *kReal;
}

int Suspend(int (*wait)(const sigset_t*), const sigset_t* mask) {
  pthread_testcancel();
  TemporaryMask temporary(mask);
  if (!temporary.interrupted()) return wait(mask);
  errno = EINTR;
  return -1;
}

}  // namespace

G* SignalSelf() {
  G* g = sched::Active() ? sched::Self() : nullptr;
  if (g == nullptr || g->g0 || g->m == nullptr) return nullptr;
  // A child of vfork borrows its parent's block.
  return g->m->tid == static_cast<int>(plat::Syscall(__NR_gettid)) ? g : nullptr;
}

TemporaryMask::TemporaryMask(const sigset_t* mask) : g_(mask != nullptr ? SignalSelf() : nullptr) {
  if (g_ == nullptr) return;
  before_ = g_->mask;
  uint64_t word = WordOf(mask) & ~(kUnblockable | sched::kReservedSignals);
  if ((LoadRelaxed(&g_->pending) & ~word) != 0) {
    heap::thread_words.handled = 0;
    ChangeMask(g_, word);
    ChangeMask(g_, before_);
    interrupted_ = heap::thread_words.handled != 0;
  }
  // The kernel takes the mask with the call, and gives it back: only the G's is changed here.
  SetOwn(word);
}

TemporaryMask::~TemporaryMask() {
  if (g_ != nullptr) SetOwn(before_);
}

void TemporaryMask::SetOwn(uint64_t mask) {
  SignalSection section;
  uint64_t kernel = g_->m->mask;
  sched::SetMaskOf(g_, mask);
  StoreRelaxed(&g_->m->mask, kernel);
}

int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
  G* g = SignalSelf();
  if (g != nullptr) return Change(g, how, set, old);
  return Real<&real::pthread_sigmask>()(how, set, old);
}

int sigprocmask(int how, const sigset_t* set, sigset_t* old) {
  G* g = SignalSelf();
  if (g == nullptr) return Real<&real::sigprocmask>()(how, set, old);
  int error = Change(g, how, set, old);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int sigblock(int mask) {
  G* g = SignalSelf();
  if (g == nullptr) return Real<&real::sigblock>()(mask);
  auto before = static_cast<int>(g->mask);
  ChangeMask(g, g->mask | static_cast<uint32_t>(mask));
  return before;
}

int sigsetmask(int mask) {
  G* g = SignalSelf();
  if (g == nullptr) return Real<&real::sigsetmask>()(mask);
  auto before = static_cast<int>(g->mask);
  ChangeMask(g, static_cast<uint32_t>(mask));
  return before;
}

namespace {

bool IsSignal(int sig) {
  if (sig > 0 && sig < kSignalCount) return true;
  errno = EINVAL;
  return false;
}

}  // namespace

int sighold(int sig) {
  G* g = SignalSelf();
  if (g == nullptr) return Real<&real::sighold>()(sig);
  if (!IsSignal(sig)) return -1;
  ChangeMask(g, g->mask | Bit(sig));
  return 0;
}

int sigrelse(int sig) {
  G* g = SignalSelf();
  if (g == nullptr) return Real<&real::sigrelse>()(sig);
  if (!IsSignal(sig)) return -1;
  ChangeMask(g, g->mask & ~Bit(sig));
  return 0;
}

int sigignore(int sig) {
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  return posix::sigaction(sig, &ignore, nullptr);
}

int sigpending(sigset_t* set) {
  int result = Real<&real::sigpending>()(set);
  G* g = result == 0 ? SignalSelf() : nullptr;
  if (g != nullptr) SetWord(set, WordOf(set) | (LoadAcquire(&g->pending) & g->mask));
  return result;
}

int sigsuspend(const sigset_t* mask) { return Suspend(plain::sigsuspend, mask); }

int __sigsuspend(const sigset_t* mask) { return Suspend(plain::__sigsuspend, mask); }

// X/Open's: waits with this signal open.
int __xpg_sigpause(int sig) {
  G* g = SignalSelf();
  if (g == nullptr) return Real<&real::__xpg_sigpause>()(sig);
  if (!IsSignal(sig)) return -1;
  sigset_t mask;
  SetWord(&mask, g->mask & ~Bit(sig));
  return posix::sigsuspend(&mask);
}

// BSD's: waits with this mask.
int sigpause(int mask) {
  if (SignalSelf() == nullptr) return Real<&real::sigpause>()(mask);
  sigset_t set;
  SetWord(&set, static_cast<uint32_t>(mask));
  return posix::sigsuspend(&set);
}

}  // namespace undergo::posix
