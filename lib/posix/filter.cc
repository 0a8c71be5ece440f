// SPDX-License-Identifier: Apache-2.0
// Filters of system calls that the program installs: by prctl, or by syscall() as libseccomp does.
// The collector and the scheduler learn what they may not call any more before the kernel does.
#include "gc/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "gc/collector.h"
#include "plat/vm.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "sched/confine.h"
#include "sched/thread.h"
#include "sched/trim.h"

namespace undergo::posix {

namespace {

struct SchedulerCall {
  gc::FilteredCall call;
  uint32_t what;  // sched::Confinement when it is not allowed
};

constexpr uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                             CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                             CLONE_CHILD_CLEARTID;
constexpr uint64_t kHere = static_cast<uint32_t>(AT_FDCWD);
constexpr SchedulerCall kCalls[] = {
    {{__NR_clone, {kThread}}, sched::kNoThreadCalls},
    {{__NR_set_robust_list, {}}, sched::kNoThreadCalls},
    {{__NR_mmap, {0, kOsPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS}}, sched::kNoThreadCalls},
    {{__NR_mprotect, {0, kOsPageSize, PROT_READ | PROT_WRITE}}, sched::kNoThreadCalls},
    {{__NR_rt_sigprocmask, {SIG_SETMASK}}, sched::kNoMaskCalls},
    {{__NR_epoll_create1, {EPOLL_CLOEXEC}}, sched::kConfined},
    {{__NR_epoll_ctl, {3, EPOLL_CTL_MOD, 4}}, sched::kConfined},
    {{__NR_epoll_pwait2, {3}}, sched::kConfined},
    {{__NR_eventfd2, {1, EFD_CLOEXEC | EFD_NONBLOCK}}, sched::kConfined},
    {{__NR_poll, {}}, sched::kConfined},
    {{__NR_fcntl, {3, F_GETFL}}, sched::kConfined},
    {{__NR_fcntl, {3, F_DUPFD_CLOEXEC, 56}}, sched::kConfined},
    {{__NR_fstat, {3}}, sched::kConfined},
    {{__NR_getsockopt, {3, 1}}, sched::kConfined},
    {{__NR_preadv2, {3}}, sched::kConfined},
    {{__NR_pwritev2, {4}}, sched::kConfined},
    {{__NR_openat, {kHere, 0, O_RDONLY | O_CLOEXEC}}, sched::kConfined},
    {{__NR_read, {3}}, sched::kConfined},
    {{__NR_close, {3}}, sched::kConfined},
    {{__NR_clock_gettime, {static_cast<uint32_t>(-6)}}, sched::kConfined},
    {{__NR_rt_tgsigqueueinfo, {0, 0, 33}}, sched::kConfined},
    {{__NR_getpid, {}}, sched::kConfined},
    {{__NR_gettid, {}}, sched::kConfined},
    {{__NR_membarrier, {8}}, sched::kConfined},
    {{__NR_sched_yield, {}}, sched::kConfined},
};

// What the scheduler can do without.
struct OptionalCall {
  gc::FilteredCall call;
  void (*leave)();
};
constexpr OptionalCall kOptional[] = {
    {{__NR_mincore, {0, kOsPageSize}}, sched::StopTrimming},
    {{__NR_madvise, {0, kOsPageSize, MADV_DONTNEED}}, sched::StopTrimming},
    {{__NR_sigaltstack, {}}, LeaveAltStacksToProgram},
};

// Length 0: nothing is allowed.
void LeaveOptional(const sock_filter* program, size_t length) {
  for (const OptionalCall& c : kOptional) {
    uint32_t verdict = length != 0 ? gc::AskFilter(program, length, c.call) : SECCOMP_RET_KILL;
    uint32_t action = verdict & SECCOMP_RET_ACTION_FULL;
    if (action != SECCOMP_RET_ALLOW && action != SECCOMP_RET_LOG) c.leave();
  }
}

// Errors count as well: a G whose kernel thread blocks needs another one. ENOSYS alone is what an
// older kernel says, which the scheduler knows how to do without.
uint32_t Forbidden(const sock_filter* program, size_t length) {
  uint32_t what = 0;
  for (const SchedulerCall& c : kCalls) {
    uint32_t verdict = gc::AskFilter(program, length, c.call);
    uint32_t action = verdict & SECCOMP_RET_ACTION_FULL;
    bool old = action == SECCOMP_RET_ERRNO && (verdict & SECCOMP_RET_DATA) == ENOSYS &&
               (c.call.number == __NR_epoll_pwait2 || c.call.number == __NR_preadv2 ||
                c.call.number == __NR_pwritev2 || c.call.number == __NR_membarrier);
    bool allowed = action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG || old;
    if (!allowed) what |= c.what | sched::kConfined;
  }
  return what;
}

constexpr uint32_t kAll = sched::kConfined | sched::kNoMaskCalls | sched::kNoThreadCalls;

}  // namespace

void BeforeSeccomp(long operation, long program) {
  if (!gc::IsOn() && !sched::Configured()) return;
  gc::FilterVerdict verdict;
  verdict.deadly = true;  // the strict mode allows four calls
  uint32_t forbidden = kAll;
  if (operation != SECCOMP_SET_MODE_FILTER) {
    LeaveOptional(nullptr, 0);
  } else {
    // Copied: the kernel, not we, should find out that the pointers are wrong.
    sock_fprog header;
    if (!plat::SafeRead(static_cast<Addr>(program), &header, sizeof header)) return;
    size_t bytes = header.len * sizeof(sock_filter);
    auto* copy = static_cast<sock_filter*>(plat::MapPages(BPF_MAXINSNS * sizeof(sock_filter)));
    bool readable = copy != nullptr && header.len <= BPF_MAXINSNS &&
                    plat::SafeRead(reinterpret_cast<Addr>(header.filter), copy, bytes);
    if (readable) {
      verdict = gc::JudgeFilter(copy, header.len);
      forbidden = Forbidden(copy, header.len);
      LeaveOptional(copy, header.len);
    }
    if (copy != nullptr) {
      plat::Unmap(reinterpret_cast<Addr>(copy), BPF_MAXINSNS * sizeof(sock_filter));
      if (!readable) return;
    }
  }
  if (forbidden != 0) sched::Confine(forbidden);
  if (gc::IsOn()) gc::BeforeFilter(verdict);
}

void BeforePrctlSeccomp(long mode, long program) {
  bool filter = mode == SECCOMP_MODE_FILTER;
  BeforeSeccomp(filter ? SECCOMP_SET_MODE_FILTER : SECCOMP_SET_MODE_STRICT, program);
}

}  // namespace undergo::posix
