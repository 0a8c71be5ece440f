// SPDX-License-Identifier: Apache-2.0
// Bodies of the interposed functions, from abi/libc.def, and what boot needs of this layer.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/types.h"

// Exported by libc, declared by none of its headers.
extern "C" int __sigaction(int sig, const struct sigaction* act, struct sigaction* old) noexcept;
extern "C" sighandler_t bsd_signal(int sig, sighandler_t handler) noexcept;

namespace undergo::posix {

#define UNDERGO_ROW(ret, name, params, args) ret name params;
#include "abi/libc.def"

// Registers the fork handlers. Called before anybody else can register some: glibc runs the first
// registered prepare handler last and the first registered child handler first, so the handlers of
// others may allocate.
void InstallForkHandlers();

// Makes sure that threads give their mcache back when they end.
void InstallThreadExitHook();

// Pointers that did not come from this heap; for heap::heap_client.
bool FreeForeign(void* p);
bool ForeignSize(void* p, size_t* size);

}  // namespace undergo::posix
