// SPDX-License-Identifier: Apache-2.0
// The C++ operators. Success needs nothing of the C++ library. When there is no memory, its own
// operator takes over: that runs the new_handler and throws, and it lives in the program's process
// only if the program is C++.
#include <stdlib.h>

#include <new>

#include "base/assert.h"
#include "heap/fastpath.h"
#include "heap/malloc.h"
#include "plat/real.h"

namespace heap = undergo::heap;

namespace {

template <typename Function, typename... Args>
UNDERGO_COLD void* Fallback(const char* symbol, Args... args) {
  auto next = reinterpret_cast<Function>(undergo::real::Next(symbol));
  if (next == nullptr) undergo::Fatal("operator new: out of memory and no C++ library", symbol, 0);
  return next(args...);
}

UNDERGO_INLINE void* Aligned(size_t size, std::align_val_t align) {
  auto bytes = static_cast<size_t>(align);
  if (UNDERGO_UNLIKELY(!undergo::IsPowerOfTwo(bytes))) return nullptr;
  return heap::MallocAligned(bytes, size);
}

using New = void* (*)(size_t);
using NewNothrow = void* (*)(size_t, const std::nothrow_t&);
using NewAligned = void* (*)(size_t, std::align_val_t);
using NewAlignedNothrow = void* (*)(size_t, std::align_val_t, const std::nothrow_t&);

}  // namespace

// The plain operator is the hot one: it ends in a jump to its slow half.
#define UNDERGO_NEW(op, slow, plain, nothrow, aligned, aligned_nothrow)                        \
  static UNDERGO_NOINLINE void* slow(size_t n) {                                               \
    void* p = heap::MallocSlow(n);                                                             \
    return UNDERGO_LIKELY(p != nullptr) ? p : Fallback<New>(plain, n);                         \
  }                                                                                            \
  UNDERGO_EXPORT void* op(size_t n) { return heap::Malloc<slow>(n); }                          \
  UNDERGO_EXPORT void* op(size_t n, const std::nothrow_t& t) noexcept {                        \
    void* p = heap::Malloc(n);                                                                 \
    return UNDERGO_LIKELY(p != nullptr)                                                        \
               ? p                                                                             \
               : Fallback<NewNothrow, size_t, const std::nothrow_t&>(nothrow, n, t);           \
  }                                                                                            \
  UNDERGO_EXPORT void* op(size_t n, std::align_val_t a) {                                      \
    void* p = Aligned(n, a);                                                                   \
    return UNDERGO_LIKELY(p != nullptr) ? p : Fallback<NewAligned>(aligned, n, a);             \
  }                                                                                            \
  UNDERGO_EXPORT void* op(size_t n, std::align_val_t a, const std::nothrow_t& t) noexcept {    \
    void* p = Aligned(n, a);                                                                   \
    return UNDERGO_LIKELY(p != nullptr)                                                        \
               ? p                                                                             \
               : Fallback<NewAlignedNothrow, size_t, std::align_val_t, const std::nothrow_t&>( \
                     aligned_nothrow, n, a, t);                                                \
  }

UNDERGO_NEW(operator new, NewSlow, "_Znwm", "_ZnwmRKSt9nothrow_t", "_ZnwmSt11align_val_t",
            "_ZnwmSt11align_val_tRKSt9nothrow_t")
UNDERGO_NEW(operator new[], NewArraySlow, "_Znam", "_ZnamRKSt9nothrow_t", "_ZnamSt11align_val_t",
            "_ZnamSt11align_val_tRKSt9nothrow_t")

#define UNDERGO_DELETE(op)                                                              \
  UNDERGO_EXPORT void op(void* p) noexcept { heap::Free(p); }                           \
  UNDERGO_EXPORT void op(void* p, size_t) noexcept { heap::Free(p); }                   \
  UNDERGO_EXPORT void op(void* p, const std::nothrow_t&) noexcept { heap::Free(p); }    \
  UNDERGO_EXPORT void op(void* p, std::align_val_t) noexcept { heap::Free(p); }         \
  UNDERGO_EXPORT void op(void* p, size_t, std::align_val_t) noexcept { heap::Free(p); } \
  UNDERGO_EXPORT void op(void* p, std::align_val_t, const std::nothrow_t&) noexcept {   \
    heap::Free(p);                                                                      \
  }

UNDERGO_DELETE(operator delete)
UNDERGO_DELETE(operator delete[])
