// SPDX-License-Identifier: Apache-2.0
// Every allocator symbol that a program may bind to comes from the library: one that is left out
// would hand a block of one allocator to the other.
// native: no
// run:
#include "check.h"

static const char* const kSymbols[] = {
    "malloc", "free", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc",
    "posix_memalign", "valloc", "pvalloc", "malloc_usable_size", "free_sized", "free_aligned_sized",
    "mallopt", "mallinfo", "mallinfo2", "malloc_trim", "malloc_info", "malloc_stats",
    "__libc_malloc", "__libc_free", "__libc_calloc", "__libc_realloc", "__libc_memalign",
    "__libc_valloc", "__libc_pvalloc", "__libc_mallopt", "__libc_mallinfo", "cfree",
    // operator new and new[]: plain, nothrow, aligned, aligned and nothrow.
    "_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t", "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    // operator delete and delete[]: plain, sized, nothrow, aligned, sized aligned, aligned nothrow.
    "_ZdlPv", "_ZdaPv", "_ZdlPvm", "_ZdaPvm", "_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t", "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t"};

static int FromLibrary(void* symbol, const char** from) {
  Dl_info info;
  *from = "nowhere";
  if (!symbol || !dladdr(symbol, &info)) return 0;
  *from = info.dli_fname;
  return strstr(info.dli_fname, "libundergo") != NULL;
}

int main(void) {
  int wrong = 0;
  const char* from;
  for (size_t i = 0; i < sizeof kSymbols / sizeof *kSymbols; i++)
    if (!FromLibrary(dlsym(RTLD_DEFAULT, kSymbols[i]), &from)) {
      fprintf(stderr, "%s comes from %s\n", kSymbols[i], from);
      wrong++;
    }
  // Exception machinery exported by accident would take over the program's own.
  static const char* const kForeign[] = {
      "__cxa_throw",          "__cxa_begin_catch", "_Unwind_RaiseException",
      "__gxx_personality_v0", "_Unwind_Backtrace", "unw_backtrace"};
  void* self = dlopen("libundergo.so", RTLD_NOLOAD | RTLD_LAZY);
  Dl_info here;
  CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &here));
  if (!self) self = dlopen(here.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
  CHECK(self);
  for (size_t i = 0; i < sizeof kForeign / sizeof *kForeign; i++)
    if (FromLibrary(dlsym(self, kForeign[i]), &from)) {
      fprintf(stderr, "%s is exported by the library\n", kForeign[i]);
      wrong++;
    }
  CHECK_EQ(wrong, 0);
  puts("symbols right");
  return 0;
}
