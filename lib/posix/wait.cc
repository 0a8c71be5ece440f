// SPDX-License-Identifier: Apache-2.0
// Waiting for children.
//
// A thread that waits for the end of one certain child parks on a pidfd, which is ready when the
// child has ended, and asks with WNOHANG again. All else blocks the kernel thread, whose P is given
// away at once: any child or one of a group, children that stop or go on, and children that are not
// a process of their own, for which there is no descriptor. Tracers are pinned and do not come
// here.
//
// The pidfd is visible to the program for the time of the wait; its number is out of the way.
#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "posix/cancel_point.h"
#include "posix/descriptor.h"
#include "sched/confine.h"

namespace undergo::posix {

namespace {

// The lowest numbers mean something to programs that close and open them one by one.
constexpr int kLowestNumber = 3;

int OpenChild(pid_t pid) {
  long fd = plat::Syscall(__NR_pidfd_open, pid, 0);
  if (plat::IsError(fd)) return -1;
  int high = sched::NetpollMoveHigh(static_cast<int>(fd));
  if (high >= kLowestNumber) return high;
  plat::Syscall(__NR_close, high);
  return -1;
}

// ask() is the call with WNOHANG, and answers 0 while the child runs; block() is the call itself.
// `fd` names the child; it is closed at the end if it is ours.
template <typename T, typename F>
long ParkedOn(int fd, bool ours, T ask, F block) {
  int now = fd;
  long r = 0;
  while (r == 0) {
    WaitEnd end = WaitUncancelled(&now, EPOLLIN, sched::kNever, Restart::kByFlag);
    r = end == WaitEnd::kEintr ? -EINTR : ask();
    if (r == 0 && end == WaitEnd::kCannot) r = Raw(block());
  }
  if (now != fd) {
    sched::NetpollEndUse(fd, now);
  } else if (ours) {
    plat::Syscall(__NR_close, fd);
  }
  if (r == -EINTR) TestCancel();
  return r;
}

template <typename T, typename F>
long Parked(pid_t pid, T ask, F block) {
  TestCancel();
  long r = ask();
  if (r != 0) return r;
  int fd = OpenChild(pid);
  if (fd < 0) return Raw(block());
  sched::NetpollForget(fd);
  return ParkedOn(fd, true, ask, block);
}

template <typename F>
pid_t WaitPid(pid_t pid, int* status, int options, struct rusage* usage, F block) {
  if (sched::Current() == nullptr || sched::IsConfined() || pid <= 0 || options != 0)
    return block();
  auto ask = [=] { return plat::Syscall(__NR_wait4, pid, status, WNOHANG, usage); };
  return static_cast<pid_t>(Result(Parked(pid, ask, block)));
}

}  // namespace

pid_t wait4(pid_t pid, int* status, int options, struct rusage* usage) {
  return WaitPid(pid, status, options, usage,
                 [=] { return plain::wait4(pid, status, options, usage); });
}

pid_t wait3(int* status, int options, struct rusage* usage) {
  return plain::wait3(status, options, usage);
}

pid_t waitpid(pid_t pid, int* status, int options) {
  return WaitPid(pid, status, options, nullptr,
                 [=] { return plain::waitpid(pid, status, options); });
}

pid_t __waitpid(pid_t pid, int* status, int options) {
  return WaitPid(pid, status, options, nullptr,
                 [=] { return plain::__waitpid(pid, status, options); });
}

int waitid(idtype_t type, id_t id, siginfo_t* info, int options) {
  auto block = [=] { return plain::waitid(type, id, info, options); };
  bool ended = (options & ~WNOWAIT) == WEXITED;
  constexpr auto kPidfd = static_cast<idtype_t>(3);
  if (sched::Current() == nullptr || sched::IsConfined() || !ended || info == nullptr ||
      (type != P_PID && type != kPidfd)) {
    return block();
  }
  // 1: there it is; its siginfo is written.
  auto ask = [=]() -> long {
    info->si_pid = 0;
    long r = plat::Syscall(__NR_waitid, type, id, info, options | WNOHANG, nullptr);
    return plat::IsError(r) ? r : info->si_pid != 0 ? 1 : 0;
  };
  long r;
  if (type == P_PID) {
    r = Parked(static_cast<pid_t>(id), ask, block);
  } else {
    TestCancel();
    r = ask();
    auto fd = static_cast<int>(id);
    if (r == 0) r = IsNonblocking(fd) ? Raw(block()) : ParkedOn(fd, false, ask, block);
  }
  return static_cast<int>(Result(r > 0 ? 0 : r));
}

}  // namespace undergo::posix
