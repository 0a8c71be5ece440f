// SPDX-License-Identifier: Apache-2.0
// The rows of abi/blocking.def as calls that block the kernel thread: `plain::name` calls libc's
// function; meanwhile the thread counts as stopped, and its P may go to another M.
#pragma once

#include "posix/posix.h"
#include "sched/handoff.h"

namespace undergo::posix::plain {

#define UNDERGO_ROW(ret, name, params, args) ret name params;
#define UNDERGO_VARIADIC(ret, name, params, args) ret name params;
#include "abi/blocking.def"
#undef UNDERGO_ROW

}  // namespace undergo::posix::plain
