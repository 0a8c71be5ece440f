// SPDX-License-Identifier: Apache-2.0
// UNDERGO_CHECK is for all builds at cold borders, UNDERGO_ASSERT for debug builds only.
// Both print the condition and its place and abort; they allocate nothing.
#pragma once

#include "base/compiler.h"

namespace undergo {

// Defined in plat/linux/log.cc: prints "undergo: <what> (<file>:<line>)" and aborts.
[[noreturn]] void Fatal(const char* what, const char* file, int line);

}  // namespace undergo

#define UNDERGO_CHECK(cond)                                           \
  do {                                                                \
    if (UNDERGO_UNLIKELY(!(cond))) {                                  \
      ::undergo::Fatal("internal error: " #cond, __FILE__, __LINE__); \
    }                                                                 \
  } while (0)

#ifdef UNDERGO_DEBUG
namespace undergo {
inline constexpr bool kDebug = true;
}
#define UNDERGO_ASSERT(cond) UNDERGO_CHECK(cond)
#else
namespace undergo {
inline constexpr bool kDebug = false;
}
#define UNDERGO_ASSERT(cond) \
  do {                       \
  } while (0)
#endif
