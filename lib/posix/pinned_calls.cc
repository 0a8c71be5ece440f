// SPDX-License-Identifier: Apache-2.0
// The wrappers of abi/pinned.def: call what the module would have called, pin the object.
#include "posix/pinned_calls.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <wchar.h>

#include <type_traits>

#include "base/compiler.h"
#include "heap/pin.h"

namespace undergo::posix {

namespace {

namespace original {
#define UNDERGO_PINNED(ret, name, params, args) \
  constinit std::add_pointer_t<ret params> name = nullptr;
#define UNDERGO_PINNED_OUT(ret, name, params, args, out) \
  constinit std::add_pointer_t<ret params> name = nullptr;
#define UNDERGO_PINNED_SYMBOL(symbol, name, params, args) \
  constinit std::add_pointer_t<void* params> name = nullptr;
#include "abi/pinned.def"
constinit void* variadic[3] = {};
}  // namespace original

namespace pinned {

#define UNDERGO_PINNED(ret, name, params, args) \
  ret name params {                             \
    ret result = original::name args;           \
    heap::Pin(result);                          \
    return result;                              \
  }
#define UNDERGO_PINNED_OUT(ret, name, params, args, out) \
  ret name params {                                      \
    ret result = original::name args;                    \
    heap::Pin(*out);                                     \
    return result;                                       \
  }
#define UNDERGO_PINNED_SYMBOL(symbol, name, params, args) \
  void* name params {                                     \
    void* result = original::name args;                   \
    heap::Pin(result);                                    \
    return result;                                        \
  }
#include "abi/pinned.def"

int asprintf(char** out, const char* format, ...) {
  va_list list;
  va_start(list, format);
  int result = pinned::vasprintf(out, format, list);
  va_end(list);
  return result;
}

int asprintf_chk(char** out, int flag, const char* format, ...) {
  va_list list;
  va_start(list, format);
  int result = pinned::__vasprintf_chk(out, flag, format, list);
  va_end(list);
  return result;
}

}  // namespace pinned

struct Row {
  const char* symbol;
  void* replacement;
  void** original;
};

#define UNDERGO_ROW(symbol, name) \
  {symbol, reinterpret_cast<void*>(pinned::name), reinterpret_cast<void**>(&original::name)},
#define UNDERGO_PINNED(ret, name, params, args) UNDERGO_ROW(#name, name)
#define UNDERGO_PINNED_OUT(ret, name, params, args, out) UNDERGO_ROW(#name, name)
#define UNDERGO_PINNED_SYMBOL(symbol, name, params, args) UNDERGO_ROW(symbol, name)
const Row kRows[] = {
#include "abi/pinned.def"
    // With `...`: the wrappers call the functions that take a list.
    {"asprintf", reinterpret_cast<void*>(pinned::asprintf), &original::variadic[0]},
    {"__asprintf", reinterpret_cast<void*>(pinned::asprintf), &original::variadic[1]},
    {"__asprintf_chk", reinterpret_cast<void*>(pinned::asprintf_chk), &original::variadic[2]},
};

bool Same(const char* a, const char* b) { return __builtin_strcmp(a, b) == 0; }

}  // namespace

void ResolvePinnedCalls() {
  for (const Row& row : kRows) *row.original = dlsym(RTLD_DEFAULT, row.symbol);
}

void* ReplacementOf(const char* symbol, void** original) {
  for (const Row& row : kRows) {
    if (!Same(row.symbol, symbol)) continue;
    *original = *row.original;
    return *row.original != nullptr ? row.replacement : nullptr;
  }
  return nullptr;
}

}  // namespace undergo::posix
