// SPDX-License-Identifier: Apache-2.0
// Copies of the process by the clone system call.
//
// What keeps a copy from being noticed:
// * No exit signal: no SIGCHLD, and wait() without __WALL does not see it. No fork handler runs.
// * CLONE_UNTRACED: a debugger that follows children does not follow this one.
// * The descriptor table is shared at first and then left at once: a copied one would keep sockets
//   and pipes open that the program closes meanwhile, and their other ends would wait for that.
//   Where the kernel cannot (before 5.9), it stays shared; what the copy opens it closes again.
// * All signals are blocked: those for the process group must not run the program's handlers here.
// * Parent-death signal: the thread that made the copy lives as long as the process, unless that
//   ends or execs.
//
// The first writes to each page cost a copy of it as long as both live, so memory may run out that
// the program would not have used. The kernel is told to take the copy first.
#include "plat/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/compiler.h"
#include "plat/syscall.h"

namespace undergo::plat {

constinit CopyFailureHook copy_failure_hook = nullptr;

namespace {

constexpr unsigned kUnshareTable = 1u << 1;  // CLOSE_RANGE_UNSHARE, Linux 5.9

void BecomeQuiet(long parent) {
  uint64_t all = ~uint64_t{0};
  Syscall(__NR_rt_sigprocmask, SIG_SETMASK, &all, nullptr, sizeof all);
  Syscall(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
  if (Syscall(__NR_getppid) != parent) EndCopy();
  Syscall(__NR_prctl, PR_SET_NAME, "undergo-copy");
  Syscall(__NR_close_range, 0u, ~0u, kUnshareTable);
  long fd = Syscall(__NR_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0);
  if (!IsError(fd)) {
    Syscall(__NR_write, fd, "1000", 4);
    Syscall(__NR_close, fd);
  }
  // 1 is what the kernel takes for "no core dump" whether it writes a file or feeds a program.
  struct rlimit core = {1, 1};
  Syscall(__NR_prlimit64, 0, RLIMIT_CORE, &core, nullptr);
}

}  // namespace

long CopyProcess() {
  if (UNDERGO_UNLIKELY(copy_failure_hook != nullptr)) {
    if (int error = copy_failure_hook(); error != 0) return -error;
  }
  long parent = Syscall(__NR_getpid);
  long id = Syscall(__NR_clone, CLONE_FILES | CLONE_UNTRACED, nullptr, nullptr, nullptr, 0);
  if (id == 0) BecomeQuiet(parent);
  return id;
}

void EndCopy() {
  for (;;) Syscall(__NR_exit_group, 0);
}

bool CopyHasEnded(long id, bool wait) {
  int status;
  long r;
  do {
    r = Syscall(__NR_wait4, id, &status, __WALL | (wait ? 0 : WNOHANG), nullptr);
  } while (r == -EINTR);
  if (IsError(r) && r != -ECHILD) KillCopy(id);  // refused: nobody can wait for it
  return r != 0;
}

void KillCopy(long id) { Syscall(__NR_kill, id, SIGKILL); }

}  // namespace undergo::plat
