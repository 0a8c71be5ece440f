// SPDX-License-Identifier: Apache-2.0
// The exec functions that take a list: collected into a vector for those in abi/blocking.def.
#include <stdarg.h>
#include <unistd.h>

#include "base/compiler.h"
#include "posix/posix.h"

namespace {

// Words of a list up to its null, which is counted.
size_t Count(const char* first, va_list list) {
  size_t n = 1;
  for (const char* word = first; word != nullptr; word = va_arg(list, const char*)) ++n;
  return n;
}

void Collect(const char* first, va_list list, char** argv) {
  for (const char* word = first; word != nullptr; word = va_arg(list, const char*)) {
    *argv++ = const_cast<char*>(word);
  }
  *argv = nullptr;
}

}  // namespace

// On the stack, as libc does: a child of vfork must not allocate. `exec` is done with `argv`, and
// `list` stands behind the null.
#define UNDERGO_EXEC(exec)                                                               \
  va_list list;                                                                          \
  va_start(list, arg);                                                                   \
  auto** argv = static_cast<char**>(__builtin_alloca(Count(arg, list) * sizeof(char*))); \
  va_end(list);                                                                          \
  va_start(list, arg);                                                                   \
  Collect(arg, list, argv);                                                              \
  int result = exec;                                                                     \
  va_end(list);                                                                          \
  return result

extern "C" {

UNDERGO_EXPORT int execl(const char* path, const char* arg, ...) {
  UNDERGO_EXEC(undergo::posix::execv(path, argv));
}

UNDERGO_EXPORT int execlp(const char* file, const char* arg, ...) {
  UNDERGO_EXEC(undergo::posix::execvp(file, argv));
}

UNDERGO_EXPORT int execle(const char* path, const char* arg, ...) {
  UNDERGO_EXEC(undergo::posix::execve(path, argv, va_arg(list, char* const*)));
}

}  // extern "C"
