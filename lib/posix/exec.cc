// SPDX-License-Identifier: Apache-2.0
// exec: the collector is told before, and again if it failed.
#include <unistd.h>

#include "gc/collector.h"
#include "posix/blocking.h"

namespace undergo::posix {

namespace {

template <auto kPlain, typename... A>
int Exec(A... args) {
  bool told = gc::BeforeExec();
  int result = kPlain(args...);
  if (told) gc::AfterExec();
  return result;
}

}  // namespace

int execve(const char* path, char* const* argv, char* const* envp) {
  return Exec<plain::execve>(path, argv, envp);
}

int execv(const char* path, char* const* argv) { return Exec<plain::execv>(path, argv); }

int execvp(const char* file, char* const* argv) { return Exec<plain::execvp>(file, argv); }

int execvpe(const char* file, char* const* argv, char* const* envp) {
  return Exec<plain::execvpe>(file, argv, envp);
}

int fexecve(int fd, char* const* argv, char* const* envp) {
  return Exec<plain::fexecve>(fd, argv, envp);
}

int execveat(int dir, const char* path, char* const* argv, char* const* envp, int flags) {
  return Exec<plain::execveat>(dir, path, argv, envp, flags);
}

}  // namespace undergo::posix
