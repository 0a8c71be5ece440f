// SPDX-License-Identifier: Apache-2.0
// Namespaces, credentials, seccomp filters, tracers and all else that the kernel keeps for each of
// its threads, and that new threads inherit from their maker.
//
// A G that changes such a thing keeps its kernel thread from then on (sched::Pin), and the threads
// that it makes are kernel threads of its own making (posix/threads.cc), which inherit what it has.
// While it is the only thread, it is enough that all other Ms end: those of later threads descend
// from the one that was changed. The kernel insists on that for some of these calls anyway.
#include "posix/kernel_state.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

#include "plat/syscall.h"
#include "posix/posix.h"
#include "sched/fork.h"
#include "sched/handoff.h"
#include "sched/quiesce.h"
#include "sched/thread.h"

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#endif

namespace undergo::posix {

void KeepKernelThread() {
  if (sched::IsPinned() || sched::Quiesce()) return;
  sched::Pin();
}

bool IsOfKernelThread(int prctl_option) {
  switch (prctl_option) {
    case PR_SET_PDEATHSIG:
    case PR_SET_KEEPCAPS:
    case PR_SET_SECCOMP:
    case PR_CAPBSET_DROP:
    case PR_SET_TSC:
    case PR_SET_SECUREBITS:
    case PR_SET_TIMERSLACK:
    case PR_MCE_KILL:
    case PR_SET_NO_NEW_PRIVS:
    case PR_CAP_AMBIENT:
    case PR_SET_SPECULATION_CTRL:
    case PR_SET_IO_FLUSHER:
    case PR_SET_SYSCALL_USER_DISPATCH:
    case PR_SCHED_CORE: return true;
    default: return false;
  }
}

#define UNDERGO_KEEP(name, condition, ...)    \
  if (real::name == nullptr) real::Resolve(); \
  if (condition) KeepKernelThread();          \
  return real::name(__VA_ARGS__)

int unshare(int flags) { UNDERGO_KEEP(unshare, true, flags); }
int setns(int fd, int type) { UNDERGO_KEEP(setns, true, fd, type); }
int setfsuid(uid_t id) { UNDERGO_KEEP(setfsuid, id != static_cast<uid_t>(-1), id); }
int setfsgid(gid_t id) { UNDERGO_KEEP(setfsgid, id != static_cast<gid_t>(-1), id); }
int personality(unsigned long p) { UNDERGO_KEEP(personality, p != 0xffffffff, p); }
int ioperm(unsigned long from, unsigned long n, int on) { UNDERGO_KEEP(ioperm, true, from, n, on); }
int iopl(int level) { UNDERGO_KEEP(iopl, true, level); }
int pkey_alloc(unsigned flags, unsigned rights) { UNDERGO_KEEP(pkey_alloc, true, flags, rights); }
int pkey_set(int key, unsigned rights) { UNDERGO_KEEP(pkey_set, true, key, rights); }

// The tracer is the kernel thread.
long ptrace(enum __ptrace_request request, long pid, long address, long data) {
  sched::PinAsParent();
  UNDERGO_KEEP(ptrace, false, request, pid, address, data);
}

// The scheduler leaves the GS base alone.
int arch_prctl(int code, unsigned long address) {
  constexpr int kSetGs = 0x1001;
  UNDERGO_KEEP(arch_prctl, code == kSetGs, code, address);
}

// Declared in libcap's header alone.
int capset(struct __user_cap_header_struct* header, struct __user_cap_data_struct* data) {
  UNDERGO_KEEP(capset, true, header, data);
}

namespace {

bool KeepsThread(long number, const long a[6]) {
  switch (number) {
    case __NR_setuid:
    case __NR_setgid:
    case __NR_setreuid:
    case __NR_setregid:
    case __NR_setresuid:
    case __NR_setresgid:
    case __NR_setgroups:
    case __NR_capset:
    case __NR_unshare:
    case __NR_setns:
    case __NR_set_mempolicy:
    case __NR_ioprio_set:
    case __NR_keyctl:
    case __NR_set_tid_address:
    case __NR_set_robust_list:
    case __NR_ioperm:
    case __NR_iopl:
    case __NR_pkey_alloc:
    case __NR_sched_setattr:
    case 446 /* landlock_restrict_self */: return true;
    case __NR_setfsuid:
    case __NR_setfsgid: return static_cast<int>(a[0]) != -1;
    case __NR_personality: return static_cast<uint32_t>(a[0]) != 0xffffffff;
    case __NR_seccomp:
      return a[0] != SECCOMP_GET_ACTION_AVAIL && (a[1] & SECCOMP_FILTER_FLAG_TSYNC) == 0;
    case __NR_perf_event_open: return static_cast<int>(a[1]) == 0;
    case __NR_io_uring_setup: {
      auto* p = reinterpret_cast<const struct io_uring_params*>(a[1]);
      return p != nullptr && (p->flags & IORING_SETUP_SINGLE_ISSUER) != 0;
    }
    default: return false;
  }
}

template <typename T>
T* As(long word) {
  return reinterpret_cast<T*>(word);
}

}  // namespace

bool ThreadSyscall(long number, const long a[6], long* result) {
  if (!sched::Active()) return false;
  auto id = static_cast<pid_t>(a[0]);
  switch (number) {
    case __NR_gettid: *result = posix::gettid(); return true;
    // The word that the kernel clears at a kernel thread's end is libc's for the M.
    case __NR_set_tid_address:
      if (sched::Self() == nullptr) return false;
      *result = posix::gettid();
      return true;
    case __NR_prctl:
      *result = posix::prctl(static_cast<int>(a[0]), a[1], a[2], a[3], a[4]);
      return true;
    case __NR_arch_prctl:
      *result = posix::arch_prctl(static_cast<int>(a[0]), static_cast<unsigned long>(a[1]));
      return true;
    case __NR_sched_setscheduler:
      *result = posix::sched_setscheduler(id, static_cast<int>(a[1]), As<sched_param>(a[2]));
      return true;
    case __NR_sched_getscheduler: *result = posix::sched_getscheduler(id); return true;
    case __NR_sched_setparam:
      *result = posix::sched_setparam(id, As<sched_param>(a[1]));
      return true;
    case __NR_sched_getparam:
      *result = posix::sched_getparam(id, As<sched_param>(a[1]));
      return true;
    case __NR_sched_setaffinity:
      *result = posix::sched_setaffinity(id, static_cast<size_t>(a[1]), As<cpu_set_t>(a[2]));
      return true;
    case __NR_setpriority:
      *result = posix::setpriority(static_cast<__priority_which_t>(a[0]), static_cast<id_t>(a[1]),
                                   static_cast<int>(a[2]));
      return true;
    case __NR_clock_gettime:
      *result = posix::clock_gettime(static_cast<clockid_t>(a[0]), As<struct timespec>(a[1]));
      return true;
    case __NR_getrusage:
      *result = posix::getrusage(static_cast<__rusage_who_t>(a[0]), As<struct rusage>(a[1]));
      return true;
    // Nothing of a G's can be registered with one kernel thread.
    case __NR_rseq:
      errno = ENOSYS;
      *result = -1;
      return true;
    // It hands some results on in other ways than libc's function.
    case __NR_ptrace: sched::PinAsParent(); return false;
    case __NR_fork:
    case __NR_clone3: sched::NoteFork(); return false;
    case __NR_clone:
      sched::NoteFork();
      sched::NoteClone(static_cast<unsigned long>(a[0]));
      return false;
    default:
      if (KeepsThread(number, a)) KeepKernelThread();
      return false;
  }
}

}  // namespace undergo::posix
