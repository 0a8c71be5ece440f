// SPDX-License-Identifier: Apache-2.0
// Exported symbols of abi/libc.def. The C++ name is private and takes the public one through an
// assembler label, so the attributes of the headers do not clash. The pointer is never used: its
// initialisation fails to compile when a row disagrees with libc's prototype.
#include "base/compiler.h"
#include "posix/posix.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define UNDERGO_ROW(ret, name, params, args)                                 \
  extern "C" UNDERGO_EXPORT ret undergo_export_##name params __asm__(#name); \
  ret undergo_export_##name params { return undergo::posix::name args; }     \
  [[maybe_unused]] static constexpr ret(*prototype_of_##name) params = &::name;
#define UNDERGO_VARIADIC(ret, name, params, args)                            \
  extern "C" UNDERGO_EXPORT ret undergo_export_##name params __asm__(#name); \
  ret undergo_export_##name params { return undergo::posix::name args; }
#include "abi/libc.def"
