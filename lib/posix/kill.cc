// SPDX-License-Identifier: Apache-2.0
// Signals that the program sends to one of its threads, or to itself. Ids of Gs are none of the
// kernel's.
#include <errno.h>

#include "plat/syscall.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "posix/signal_mask.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/tcb.h"
#include "sched/thread.h"

namespace undergo::posix {

namespace {

// libc keeps two for itself.
bool MaySend(int sig) { return sig >= 0 && sig < kSignalCount && sig != 32 && sig != 33; }

bool OwnProcess(pid_t pid) { return pid == static_cast<pid_t>(plat::Syscall(__NR_getpid)); }

bool WasThread(pthread_t id) {
  return sched::Active() && sched::SlotOf(id, sched::kPthreadSize) != nullptr;
}

int Result(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

// Whether it was sent already.
bool SentWithin(pid_t pid, int sig, int code, const union sigval* value) {
  if (!sched::Active() || sig <= 0 || !MaySend(sig) || !OwnProcess(pid)) return false;
  siginfo_t info = SelfInfo(sig, code);
  if (value != nullptr) info.si_value = *value;
  return SendToAny(SignalSelf(), sig, info);
}

}  // namespace

int pthread_kill(pthread_t thread, int sig) {
  if (real::pthread_kill == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) return WasThread(thread) ? ESRCH : real::pthread_kill(thread, sig);
  if (!MaySend(sig)) return EINVAL;
  return sig == 0 ? 0 : SendTo(g, sig, SelfInfo(sig, SI_TKILL));
}

int pthread_sigqueue(pthread_t thread, int sig, const union sigval value) {
  if (real::pthread_sigqueue == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) {
    return WasThread(thread) ? ESRCH : real::pthread_sigqueue(thread, sig, value);
  }
  if (!MaySend(sig)) return EINVAL;
  if (sig == 0) return 0;
  siginfo_t info = SelfInfo(sig, SI_QUEUE);
  info.si_value = value;
  return SendTo(g, sig, info);
}

int raise(int sig) {
  if (real::raise == nullptr) real::Resolve();
  G* g = SignalSelf();
  if (g == nullptr || sig <= 0) return real::raise(sig);
  return Result(MaySend(sig) ? SendTo(g, sig, SelfInfo(sig, SI_TKILL)) : EINVAL);
}

int gsignal(int sig) { return posix::raise(sig); }

int tgkill(pid_t pid, pid_t tid, int sig) {
  if (real::tgkill == nullptr) real::Resolve();
  G* g = OwnProcess(pid) ? sched::FindByTid(tid) : nullptr;
  if (g == nullptr) return real::tgkill(pid, tid, sig);
  if (sig < 0 || sig >= kSignalCount) return Result(EINVAL);
  return Result(sig == 0 ? 0 : SendTo(g, sig, SelfInfo(sig, SI_TKILL)));
}

int kill(pid_t pid, int sig) {
  if (real::kill == nullptr) real::Resolve();
  return SentWithin(pid, sig, SI_USER, nullptr) ? 0 : real::kill(pid, sig);
}

int sigqueue(pid_t pid, int sig, const union sigval value) {
  if (real::sigqueue == nullptr) real::Resolve();
  return SentWithin(pid, sig, SI_QUEUE, &value) ? 0 : real::sigqueue(pid, sig, value);
}

bool SignalCall(long number, long a, long b, long c, long d, long* result) {
  if (!sched::Active()) return false;
  if (number == __NR_kill) {
    *result = 0;
    return SentWithin(static_cast<pid_t>(a), static_cast<int>(b), SI_USER, nullptr);
  }
  bool process_named = number == __NR_tgkill || number == __NR_rt_tgsigqueueinfo;
  if (!process_named && number != __NR_tkill) return false;
  auto tid = static_cast<int>(process_named ? b : a);
  auto sig = static_cast<int>(process_named ? c : b);
  if (process_named && !OwnProcess(static_cast<pid_t>(a))) return false;
  G* g = sched::FindByTid(tid);
  if (g == nullptr) return false;
  if (sig < 0 || sig >= kSignalCount) {
    *result = -EINVAL;
  } else if (sig == 0) {
    *result = 0;
  } else if (number == __NR_rt_tgsigqueueinfo) {
    siginfo_t info = *reinterpret_cast<const siginfo_t*>(d);
    info.si_signo = sig;
    *result = -SendTo(g, sig, info);
  } else {
    *result = -SendTo(g, sig, SelfInfo(sig, SI_TKILL));
  }
  return true;
}

}  // namespace undergo::posix
