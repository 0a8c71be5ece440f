// SPDX-License-Identifier: Apache-2.0
// Words that the program gave to the kernel and may have kept nowhere else.
#pragma once

#include "base/types.h"

namespace undergo::gc {

// Calls f for each data word of each epoll watch and for the sigval of each POSIX timer. False when
// one of the lists cannot be read. Not seen: what is in flight in io_uring (UsesIoUring), in
// pipes and sockets, and in mq_notify.
bool ForEachKernelWord(void (*f)(void* context, uint64_t word), void* context);

// The process has an io_uring descriptor, or maps the rings of one: words may be in flight that
// nobody can read. True as well when this cannot be found out.
bool UsesIoUring();

}  // namespace undergo::gc
