// SPDX-License-Identifier: Apache-2.0
// Words that the program gave to the kernel and may have kept nowhere else.
#pragma once

#include "base/types.h"
#include "gc/pipes.h"

namespace undergo::gc {

// Which facilities the descriptors of the process show.
struct KernelUse {
  bool io_uring = false;
  uint32_t userfaultfds = 0;
  // What got hold of memory earlier may write to it without a fault: direct reads of files,
  // devices. Only looked for on demand.
  bool direct_writes = false;
};

// The target of a descriptor, or the name of a mapping, of something that may do so.
bool WritesDirectly(const char* target);

// Calls f for the data word of each epoll watch and for the sigval of each POSIX timer. False when
// one of the lists cannot be read. `use`, if given, is filled in; its direct_writes if that is
// wanted. The lists are not read in one moment: words that enter the kernel meanwhile may be missed
// (gc/kernel_words.h notes them). Never seen: what is in sockets or in flight in an io_uring,
// mq_notify, queued signals, and descriptors of threads with a descriptor table of their own. What
// the list of pipes, if given, is for: gc/pipes.h.
bool ForEachKernelWord(void (*f)(void* context, uint64_t word), void* context,
                       KernelUse* use = nullptr, bool want_direct_writes = false,
                       Pipes* list = nullptr);

// The process has an io_uring descriptor, or maps the rings of one: words may be in flight that
// nobody can read. True as well when this cannot be found out.
bool UsesIoUring();

}  // namespace undergo::gc
