// SPDX-License-Identifier: Apache-2.0
// Bodies of abi/blocking.def: calls during which the thread counts as stopped.
#include <errno.h>

#include "posix/posix.h"
#include "world/blocked_call.h"

namespace undergo::posix {

namespace {

// A function that this libc does not have, or entered before boot.
template <auto* kReal>
UNDERGO_COLD auto Look() {
  real::Resolve();
  return *kReal;
}

template <auto* kReal, typename... A>
UNDERGO_INLINE auto Call(A... args) {
  auto real = *kReal;
  if (UNDERGO_UNLIKELY(real == nullptr)) {
    real = Look<kReal>();
    if (real == nullptr) {
      errno = ENOSYS;
      return static_cast<decltype(real(args...))>(-1);
    }
  }
  if (!world::publishing) return real(args...);
  return world::BlockedCall(real, args...);
}

}  // namespace

#define UNDERGO_ROW(ret, name, params, args) \
  ret name params { return Call<&real::name> args; }
#define UNDERGO_VARIADIC(ret, name, params, args) UNDERGO_ROW(ret, name, params, args)
#include "abi/blocking.def"

namespace {

template <auto* kReal>
UNDERGO_INLINE int Fcntl(int fd, int command, long arg) {
  if (UNDERGO_UNLIKELY(*kReal == nullptr)) Look<kReal>();
  if (command == F_SETLKW || command == F_OFD_SETLKW) return Call<kReal>(fd, command, arg);
  return (*kReal)(fd, command, arg);
}

}  // namespace

int fcntl(int fd, int command, long arg) { return Fcntl<&real::fcntl>(fd, command, arg); }

int fcntl64(int fd, int command, long arg) {
  // Since glibc 2.28; the same on this machine.
  if (UNDERGO_UNLIKELY(real::fcntl64 == nullptr)) return posix::fcntl(fd, command, arg);
  return Fcntl<&real::fcntl64>(fd, command, arg);
}

}  // namespace undergo::posix
