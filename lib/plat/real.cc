// SPDX-License-Identifier: Apache-2.0
// Lookup of the real libc functions.
#include "plat/real.h"

#include <dlfcn.h>

#include <type_traits>

namespace undergo::real {

#define UNDERGO_ROW(ret, name, params, args) \
  constinit std::add_pointer_t<ret params> name = nullptr;
#define UNDERGO_REAL(ret, name, params) \
  constinit std::add_pointer_t<ret params> undergo_real_##name = nullptr;
#include "abi/libc.def"

void* Next(const char* symbol) { return dlsym(RTLD_NEXT, symbol); }

void Resolve() {
#define UNDERGO_ROW(ret, name, params, args) name = reinterpret_cast<ret(*) params>(Next(#name));
#define UNDERGO_REAL(ret, name, params) \
  undergo_real_##name = reinterpret_cast<ret(*) params>(Next(#name));
#include "abi/libc.def"
}

}  // namespace undergo::real

// For plat/x86_64/dlopen.S.
extern "C" __attribute__((visibility("hidden"))) void undergo_resolve_real() {
  undergo::real::Resolve();
}
