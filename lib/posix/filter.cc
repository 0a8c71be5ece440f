// SPDX-License-Identifier: Apache-2.0
// Filters of system calls that the program installs: by prctl, or by syscall() as libseccomp does.
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "gc/collector.h"
#include "plat/vm.h"
#include "posix/posix.h"

namespace undergo::posix {

void BeforeSeccomp(long operation, long program) {
  if (!gc::IsOn()) return;
  gc::FilterVerdict verdict;
  verdict.deadly = true;  // the strict mode allows four calls
  if (operation == SECCOMP_SET_MODE_FILTER) {
    // Copied: the kernel, not we, should find out that the pointers are wrong.
    sock_fprog header;
    if (!plat::SafeRead(static_cast<Addr>(program), &header, sizeof header)) return;
    size_t bytes = header.len * sizeof(sock_filter);
    auto* copy = static_cast<sock_filter*>(plat::MapPages(BPF_MAXINSNS * sizeof(sock_filter)));
    bool readable = copy != nullptr && header.len <= BPF_MAXINSNS &&
                    plat::SafeRead(reinterpret_cast<Addr>(header.filter), copy, bytes);
    if (readable) verdict = gc::JudgeFilter(copy, header.len);
    if (copy != nullptr) {
      plat::Unmap(reinterpret_cast<Addr>(copy), BPF_MAXINSNS * sizeof(sock_filter));
      if (!readable) return;
    }
  }
  gc::BeforeFilter(verdict);
}

void BeforePrctlSeccomp(long mode, long program) {
  bool filter = mode == SECCOMP_MODE_FILTER;
  BeforeSeccomp(filter ? SECCOMP_SET_MODE_FILTER : SECCOMP_SET_MODE_STRICT, program);
}

}  // namespace undergo::posix
