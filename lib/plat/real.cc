// SPDX-License-Identifier: Apache-2.0
// Lookup of the real libc functions.
#include "plat/real.h"

#include <dlfcn.h>

#include <type_traits>

#include "plat/dlopen.h"

namespace undergo::real {

#define UNDERGO_ROW(ret, name, params, args) \
  constinit std::add_pointer_t<ret params> name = nullptr;
#define UNDERGO_REAL(ret, name, params) \
  constinit std::add_pointer_t<ret params> undergo_real_##name = nullptr;
#include "abi/libc.def"

void* Next(const char* symbol) {
  // Condition variables exist twice. Before glibc 2.36 dlsym gave the old kind.
  if (__builtin_strncmp(symbol, "pthread_cond_", 13) == 0) {
    void* f = dlvsym(RTLD_NEXT, symbol, "GLIBC_2.3.2");
    if (f != nullptr) return f;
  }
  return dlsym(RTLD_NEXT, symbol);
}

void Resolve() {
#define UNDERGO_ROW(ret, name, params, args) name = reinterpret_cast<ret(*) params>(Next(#name));
#define UNDERGO_REAL(ret, name, params) \
  undergo_real_##name = reinterpret_cast<ret(*) params>(Next(#name));
#include "abi/libc.def"
}

}  // namespace undergo::real

// For plat/x86_64/dlopen.S.
extern "C" {

constinit undergo_dlopen_plan_type undergo_dlopen_plan = nullptr;
constinit undergo_dlopen_done_type undergo_dlopen_done = nullptr;

__attribute__((visibility("hidden"))) void undergo_resolve_real() { undergo::real::Resolve(); }

__attribute__((visibility("hidden"))) void* undergo_dlopen_from_here(const char* path, int mode) {
  if (undergo::real::undergo_real_dlopen == nullptr) undergo::real::Resolve();
  void* handle = undergo::real::undergo_real_dlopen(path, mode);
  undergo_dlopen_done();
  return handle;
}
}
