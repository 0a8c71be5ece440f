// SPDX-License-Identifier: Apache-2.0
// sigwait and its kin.
//
// The kernel has what was sent to the process, the G's queue what was sent to the thread. The
// thread waits in the kernel, on its M. While it does (G::waits_for) a signal that enters its queue
// is followed by a poke to the M. A poke that was not received stays pending there for good, and
// ends the program once the M runs a thread that does not block the signal: so they are counted,
// and taken out before the thread may leave its M.
#include <errno.h>

#include "plat/syscall.h"
#include "posix/blocking.h"
#include "posix/signal.h"
#include "posix/signal_mask.h"
#include "sched/masks.h"
#include "sched/sched.h"

namespace undergo::posix {

namespace {

uint64_t WordOf(const sigset_t* set) {
  uint64_t word;
  __builtin_memcpy(&word, set, sizeof word);
  return word & ~sched::kReservedSignals;
}

// A signal number, or -1 with errno.
int WaitOnG(G* g, const sigset_t* set, siginfo_t* info, const struct timespec* t) {
  uint64_t word = WordOf(set);
  for (;;) {
    EndSignalWait(g);  // one that a handler has interrupted, and waits itself
    {
      SignalSection section;
      int sig = Dequeue(g, word, info);
      if (sig != 0) return sig;
      info->si_code = 0;
      g->wait_info = info;
      StoreRelaxed(&g->waits_for, word);
    }
    int sig = plain::sigtimedwait(set, info, t);
    EndSignalWait(g);  // of a pinned thread: its call has no end in the scheduler
    if (sig <= 0) return sig;
    Undisguise(info);
    if (!IsPoke(info)) return sig;
  }
}

int Timed(const sigset_t* set, siginfo_t* info, const struct timespec* t) {
  G* g = SignalSelf();
  if (g == nullptr) return plain::sigtimedwait(set, info, t);
  pthread_testcancel();
  siginfo_t own;
  siginfo_t* where = info != nullptr ? info : &own;
  return WaitOnG(g, set, where, t);
}

}  // namespace

void EndSignalWait(G* g) {
  if (LoadRelaxed(&g->waits_for) == 0) return;
  int error = errno;
  uint64_t set;
  uint32_t pending;
  {
    SignalSection section;
    set = g->waits_for;
    pending = g->wait_pokes;
    StoreRelaxed(&g->waits_for, uint64_t{0});
    g->wait_pokes = 0;
  }
  if (pending != 0 && IsPoke(static_cast<const siginfo_t*>(g->wait_info))) --pending;
  while (pending != 0) {
    siginfo_t info;
    struct timespec none = {};
    long sig = plat::Syscall(__NR_rt_sigtimedwait, &set, &info, &none, sizeof set);
    if (plat::IsError(sig)) break;
    if (IsPoke(&info)) {
      --pending;
      continue;
    }
    SignalSection section;  // while there are pokes, the kernel hands out the thread's own
    Enqueue(g, static_cast<int>(sig), info, false);
  }
  errno = error;
}

int sigtimedwait(const sigset_t* set, siginfo_t* info, const struct timespec* t) {
  return Timed(set, info, t);
}

int sigwaitinfo(const sigset_t* set, siginfo_t* info) { return Timed(set, info, nullptr); }

// Goes on after a handler, and gives error numbers.
int sigwait(const sigset_t* set, int* sig) {
  int saved = errno;
  siginfo_t info;
  for (;;) {
    int got = Timed(set, &info, nullptr);
    int error = errno;
    errno = saved;
    if (got >= 0) {
      *sig = got;
      return 0;
    }
    if (error != EINTR) return error;
  }
}

}  // namespace undergo::posix
