// SPDX-License-Identifier: Apache-2.0
// The page of counters: see the header. It is mapped at start and stays mapped whatever the program
// closes, forks and becomes later.
#include "gc/audit.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/types.h"
#include "plat/own_ranges.h"
#include "plat/syscall.h"

namespace undergo::gc {

namespace {
constinit AuditCounters* counters = nullptr;
}

void OpenAudit(const char* path) {
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (plat::IsError(fd)) return;
  long page =
      plat::Syscall(__NR_mmap, nullptr, kOsPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  plat::Syscall(__NR_close, fd);
  if (plat::IsError(page)) return;
  plat::AddOwnRange(static_cast<Addr>(page), kOsPageSize);
  auto* all = reinterpret_cast<AuditCounters*>(page);
  if (all->magic != AuditCounters::kMagic) return;
  counters = all;
  FetchAddRelaxed(&all->processes, 1u);
}

AuditCounters* Audit() { return counters; }

}  // namespace undergo::gc
