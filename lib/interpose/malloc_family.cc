// SPDX-License-Identifier: Apache-2.0
// The exported malloc family: glibc's contract on top of heap/.
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "heap/fastpath.h"
#include "heap/malloc.h"

#define UNDERGO_CALLER __builtin_return_address(0)
UNDERGO_ALLOW_PLAIN_ALIASES

namespace heap = undergo::heap;

extern "C" {

UNDERGO_EXPORT void* malloc(size_t size) { return heap::Malloc(size); }

UNDERGO_EXPORT void free(void* p) { heap::Free(p); }

UNDERGO_EXPORT void* calloc(size_t count, size_t size) {
  size_t bytes;
  if (UNDERGO_UNLIKELY(undergo::MulOverflows(count, size, &bytes))) {
    errno = ENOMEM;
    return nullptr;
  }
  return heap::MallocZeroed(bytes);
}

UNDERGO_EXPORT void* realloc(void* p, size_t size) {
  if (p == nullptr) return heap::Malloc(size);
  if (size == 0) {
    heap::FreeSlow(p, UNDERGO_CALLER);
    return nullptr;
  }
  return heap::Realloc(p, size, UNDERGO_CALLER);
}

UNDERGO_EXPORT void* reallocarray(void* p, size_t count, size_t size) {
  size_t bytes;
  if (undergo::MulOverflows(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  return realloc(p, bytes);
}

// As glibc 2.36: every alignment is rounded up to a power of two.
UNDERGO_EXPORT void* memalign(size_t align, size_t size) {
  if (align > SIZE_MAX / 2 + 1) {
    errno = EINVAL;
    return nullptr;
  }
  if (align <= heap::kGranule) return heap::Malloc(size);
  if (!undergo::IsPowerOfTwo(align)) align = size_t{2} << undergo::HighestBit(align);
  return heap::MallocAligned(align, size);
}

UNDERGO_EXPORT void* aligned_alloc(size_t align, size_t size) { return memalign(align, size); }

UNDERGO_EXPORT int posix_memalign(void** out, size_t align, size_t size) {
  if (align % sizeof(void*) != 0 || !undergo::IsPowerOfTwo(align)) return EINVAL;
  int saved = errno;
  void* p = heap::MallocAligned(align, size);
  errno = saved;
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}

UNDERGO_EXPORT void* valloc(size_t size) { return heap::MallocAligned(undergo::kOsPageSize, size); }

UNDERGO_EXPORT void* pvalloc(size_t size) {
  if (size > heap::kMaxRequest) {
    errno = ENOMEM;
    return nullptr;
  }
  size_t bytes = undergo::AlignUp(size, undergo::kOsPageSize);
  return heap::MallocAligned(undergo::kOsPageSize, undergo::Max(bytes, undergo::kOsPageSize));
}

UNDERGO_EXPORT size_t malloc_usable_size(void* p) {
  size_t size = heap::UsableSizeFast(p);
  if (UNDERGO_LIKELY(size != 0)) return size;
  return p == nullptr ? 0 : heap::UsableSize(p, UNDERGO_CALLER);
}

UNDERGO_EXPORT size_t malloc_good_size(size_t size) { return heap::GoodSize(size); }

// C23: the size is a promise of the caller that nothing here needs.
UNDERGO_EXPORT void free_sized(void* p, size_t) { heap::Free(p); }
UNDERGO_EXPORT void free_aligned_sized(void* p, size_t, size_t) { heap::Free(p); }

UNDERGO_EXPORT void cfree(void* p) { heap::Free(p); }

void* __libc_malloc(size_t) UNDERGO_ALIAS(malloc);
void __libc_free(void*) UNDERGO_ALIAS(free);
void* __libc_calloc(size_t, size_t) UNDERGO_ALIAS(calloc);
void* __libc_realloc(void*, size_t) UNDERGO_ALIAS(realloc);
void* __libc_memalign(size_t, size_t) UNDERGO_ALIAS(memalign);
void* __libc_valloc(size_t) UNDERGO_ALIAS(valloc);
void* __libc_pvalloc(size_t) UNDERGO_ALIAS(pvalloc);
int __posix_memalign(void**, size_t, size_t) UNDERGO_ALIAS(posix_memalign);
void __libc_cfree(void*) UNDERGO_ALIAS(cfree);

}  // extern "C"
