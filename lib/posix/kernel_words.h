// SPDX-License-Identifier: Apache-2.0
// Words that system calls leave with the kernel, and pipes, where others may be left.
#pragma once

#include <sys/syscall.h>

namespace undergo::posix {

// The same for those made by syscall(), which KeepsWord names; as syscall() itself.
long KeepingCall(long number, const long args[6]);

inline bool KeepsWord(long number) {
  return number == __NR_epoll_ctl || number == __NR_timer_create || number == __NR_pipe ||
         number == __NR_pipe2;
}

}  // namespace undergo::posix
