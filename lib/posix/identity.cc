// SPDX-License-Identifier: Apache-2.0
// What a thread is called: its number and its name.
//
// The number of a G is the one in its thread block: for the first thread the process's, for others
// one above all that the kernel gives, so that a system call which meets it by mistake finds
// nobody. The name is kept in the G. Only for the process's first thread and for pinned ones, whose
// names tools look for, the kernel is told.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/fmt.h"
#include "plat/syscall.h"
#include "posix/kernel_state.h"
#include "posix/posix.h"
#include "sched/sched.h"
#include "sched/thread.h"

namespace undergo::posix {

using sched::G;

namespace {

constexpr size_t kNameSize = 16;

void TellKernel(const G* g) {
  int tid = g->state == sched::GState::kPinned ? g->m->tid : g->main ? g->tid : 0;
  if (tid == 0) return;
  if (tid == plat::Syscall(__NR_gettid)) {
    plat::Syscall(__NR_prctl, PR_SET_NAME, &g->name[0]);
    return;
  }
  char text[64];
  Fmt path(text, sizeof text);
  path.Str("/proc/self/task/").Dec(static_cast<uint64_t>(tid)).Str("/comm");
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, path.text(), O_WRONLY | O_CLOEXEC, 0);
  if (plat::IsError(fd)) return;
  plat::Syscall(__NR_write, fd, &g->name[0], __builtin_strlen(g->name));
  plat::Syscall(__NR_close, fd);
}

void SetName(G* g, const char* name) {
  size_t n = strnlen(name, kNameSize - 1);
  __builtin_memcpy(g->name, name, n);
  g->name[n] = '\0';
  TellKernel(g);
}

}  // namespace

pid_t gettid() {
  G* g = sched::Self();
  return g != nullptr ? g->tid : static_cast<pid_t>(plat::Syscall(__NR_gettid));
}

int pthread_setname_np(pthread_t thread, const char* name) {
  if (real::pthread_setname_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) return real::pthread_setname_np(thread, name);
  if (strnlen(name, kNameSize) == kNameSize) return ERANGE;
  SetName(g, name);
  return 0;
}

int pthread_getname_np(pthread_t thread, char* name, size_t size) {
  if (real::pthread_getname_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) return real::pthread_getname_np(thread, name, size);
  if (size < kNameSize) return ERANGE;
  __builtin_memcpy(name, g->name, kNameSize);
  return 0;
}

int prctl(int what, long a, long b, long c, long d) {
  if (real::prctl == nullptr) real::Resolve();
  G* g = sched::Self();
  if (g != nullptr && what == PR_SET_NAME) {
    SetName(g, reinterpret_cast<const char*>(a));
    return 0;
  }
  if (g != nullptr && what == PR_GET_NAME) {
    __builtin_memcpy(reinterpret_cast<char*>(a), g->name, kNameSize);
    return 0;
  }
  if (IsOfKernelThread(what)) KeepKernelThread();
  if (what == PR_SET_SECCOMP) BeforePrctlSeccomp(a, b);
  return real::prctl(what, a, b, c, d);
}

}  // namespace undergo::posix
