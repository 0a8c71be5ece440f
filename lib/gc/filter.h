// SPDX-License-Identifier: Apache-2.0
// Filters of system calls (seccomp) that would kill the process for what the collector calls.
#pragma once

#include "base/types.h"

struct sock_filter;

namespace undergo::gc {

// What becomes of the collector's calls.
struct FilterVerdict {
  bool deadly = false;        // some that it cannot do without
  bool no_uffd = false;       // those of the facility userfaultfd
  bool no_snapshot = false;   // those of the facility snapshot
  bool no_pipes = false;      // those that look into pipes
  bool no_placement = false;  // those that choose CPUs for threads
  bool unknown = false;       // could not be tried out now
};

// One call as a filter sees it.
struct FilteredCall {
  int number;
  uint64_t args[4];  // those that filters look at
};
// What a program says about it, a SECCOMP_RET_ value.
uint32_t AskFilter(const sock_filter* program, size_t length, const FilteredCall& call);

// By interpretation of a program that is about to be installed. `calls` for x86-64; what the kernel
// would refuse to install counts as harmless.
FilterVerdict JudgeFilter(const sock_filter* program, size_t length);

// Under a filter that was there before the process began: tried out in copies of the process. All
// false when there is none.
FilterVerdict TryOutFilter();

}  // namespace undergo::gc
