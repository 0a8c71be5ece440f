// SPDX-License-Identifier: Apache-2.0
// Objects of glibc's own allocator, which this test program uses itself, are recognised by their
// header; other addresses are not.

#include <criterion/criterion.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>

#include <thread>

#include "check.h"
#include "posix/posix.h"

using namespace undergo;

TestSuite(foreign, .timeout = 30);

#ifndef __SANITIZE_ADDRESS__  // the sanitizer's malloc has other headers

Test(foreign, sizes_are_those_of_glibc) {
  for (size_t size : {1, 24, 25, 100, 5000, 100000, 200000, 5000000}) {
    void* p = malloc(size);
    size_t found = 0;
    cr_expect(posix::ForeignSize(p, &found), "%zu", size);
    cr_expect(found == malloc_usable_size(p), "%zu: %zu, wanted %zu", size, found,
              malloc_usable_size(p));
    cr_expect(posix::FreeForeign(p), "%zu", size);
  }
}

Test(foreign, aligned_blocks) {
  for (size_t align : {32, 4096, 65536, 1 << 20}) {
    for (size_t size : {10, 300000}) {
      void* p = nullptr;
      cr_assert(posix_memalign(&p, align, size) == 0);
      size_t found = 0;
      cr_expect(posix::ForeignSize(p, &found) && found == malloc_usable_size(p), "%zu by %zu", size,
                align);
      cr_expect(posix::FreeForeign(p));
    }
  }
}

Test(foreign, blocks_of_other_arenas) {
  void* p = nullptr;
  size_t usable = 0;
  std::thread([&] {
    p = malloc(3000);
    usable = malloc_usable_size(p);
  }).join();
  size_t found = 0;
  cr_expect(posix::ForeignSize(p, &found) && found == usable);
  cr_expect(posix::FreeForeign(p));
}

// The memory really goes back: glibc hands the same chunk out again.
Test(foreign, a_freed_block_is_free) {
  void* p = OpaquePtr(malloc(1234));
  cr_assert(posix::FreeForeign(p));
  void* q = OpaquePtr(malloc(1234));
  cr_expect(p == q);
  free(q);
}

#endif

Test(foreign, other_addresses_are_not_recognised) {
  static char global[256];
  alignas(16) char local[256];
  memset(global, 0, sizeof global);
  memset(local, 0, sizeof local);
  auto* pages = static_cast<char*>(
      mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  auto* hidden =
      static_cast<char*>(mmap(nullptr, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (void* p :
       {static_cast<void*>(global + 16), static_cast<void*>(local + 16), static_cast<void*>(pages),
        static_cast<void*>(pages + 4096), static_cast<void*>(hidden),
        static_cast<void*>(hidden + 4096), static_cast<void*>(nullptr), reinterpret_cast<void*>(16),
        reinterpret_cast<void*>(~uintptr_t{15}), reinterpret_cast<void*>(uintptr_t{1} << 47),
        reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(&posix::FreeForeign) & ~15ul)}) {
    size_t size;
    cr_expect(not(posix::ForeignSize(p, &size)), "%p", p);
    cr_expect(not(posix::FreeForeign(p)), "%p", p);
  }
}

// Something that looks like a chunk of the main arena, but does not lie in its heap.
Test(foreign, a_header_alone_is_not_enough) {
  alignas(16) static size_t fake[16];
  fake[1] = 64 | 1;
  size_t size;
  cr_expect(not(posix::ForeignSize(&fake[2], &size)));
  fake[1] = 64 | 4;
  cr_expect(not(posix::ForeignSize(&fake[2], &size)));
  void* real = malloc(100);
  for (ptrdiff_t by : {1, 8, 15}) {
    cr_expect(not(posix::ForeignSize(static_cast<char*>(real) + by, &size)), "%td", by);
  }
  free(real);
}
