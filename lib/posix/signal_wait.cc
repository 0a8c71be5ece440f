// SPDX-License-Identifier: Apache-2.0
// sigwait and its kin.
//
// The kernel has what was sent to the process, the G's queue what was sent to the thread. The
// thread waits in the kernel, on its M. While it does (G::waits_for) a signal that enters its queue
// is followed by a poke to the M. A poke that was not received stays pending there for good: so
// they are counted, and taken out at the end.
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

// Pokes that came too late.
void TakePokes(G* g, uint64_t set, uint32_t received) {
  uint32_t sent;
  {
    SignalSection section;
    g->waits_for = 0;
    sent = g->wait_pokes;
    g->wait_pokes = 0;
  }
  while (received < sent) {
    siginfo_t info;
    struct timespec none = {};
    long sig = plat::Syscall(__NR_rt_sigtimedwait, &set, &info, &none, sizeof set);
    if (plat::IsError(sig)) return;
    if (IsPoke(&info)) {
      ++received;
    } else {
      SendToProcess(static_cast<int>(sig), info);
    }
  }
}

// A signal number, or -1 with errno.
int WaitOnG(G* g, const sigset_t* set, siginfo_t* info, const struct timespec* t) {
  uint64_t word = WordOf(set);
  {
    SignalSection section;
    int sig = Dequeue(g, word, info);
    if (sig != 0) return sig;
    g->waits_for = word;
  }
  uint32_t received = 0;
  int sig;
  for (;;) {
    sig = plain::sigtimedwait(set, info, t);
    if (sig > 0) Undisguise(info);
    if (sig <= 0 || !IsPoke(info)) break;
    ++received;
    SignalSection section;
    if (Dequeue(g, Bit(sig), info) != 0) break;
  }
  int error = errno;
  TakePokes(g, word, received);
  errno = error;
  return sig;
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
