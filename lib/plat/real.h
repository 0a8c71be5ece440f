// SPDX-License-Identifier: Apache-2.0
// The real libc functions behind the interposed ones: real::name, from abi/libc.def.
#pragma once

#include <grp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

// Exported by libc, declared by none of its headers.
struct __user_cap_header_struct;
struct __user_cap_data_struct;
extern "C" int arch_prctl(int code, unsigned long address) noexcept;
extern "C" int capset(struct __user_cap_header_struct* header,
                      struct __user_cap_data_struct* data) noexcept;

namespace undergo::real {

#define UNDERGO_ROW(ret, name, params, args) extern ret(*name) params;
#define UNDERGO_REAL(ret, name, params) extern "C" ret(*undergo_real_##name) params;
#include "abi/libc.def"

// Fills all pointers. Idempotent; boot calls it first of all, an interposed function that is
// entered even earlier calls it itself.
void Resolve();

// The next definition of a symbol after ours, null when there is none.
void* Next(const char* symbol);

}  // namespace undergo::real
