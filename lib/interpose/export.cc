// SPDX-License-Identifier: Apache-2.0
// Exported symbols of abi/libc.def. The C++ name is private and takes the public one through an
// assembler label, so the attributes of the headers do not clash.
#include <type_traits>

#include "base/compiler.h"
#include "posix/posix.h"

#define UNDERGO_ROW(ret, name, params, args)                                              \
  extern "C" UNDERGO_EXPORT ret undergo_export_##name params __asm__(#name);              \
  ret undergo_export_##name params { return undergo::posix::name args; }
#include "abi/libc.def"
