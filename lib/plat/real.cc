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

namespace {

// What exists twice. (A search in vain is not free of effects: the loader makes up a message by the
// program's malloc, and that of a sanitizer is not ready for it before the constructors.)
constexpr const char* kOldKinds[] = {"pthread_cond_wait", "pthread_cond_timedwait",
                                     "pthread_cond_signal", "pthread_cond_broadcast"};

// By hand: strcmp is the sanitizer's, too.
bool IsSame(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

bool HasOldKind(const char* symbol) {
  for (const char* old : kOldKinds) {
    if (IsSame(symbol, old)) return true;
  }
  return false;
}

}  // namespace

void* Next(const char* symbol) {
  // Condition variables. Before glibc 2.36 dlsym gave the old kind.
  if (HasOldKind(symbol)) {
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
