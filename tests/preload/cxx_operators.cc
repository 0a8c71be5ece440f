// SPDX-License-Identifier: Apache-2.0
// Every form of operator new and delete: alignment, zero sizes, the new_handler loop, bad_alloc.
// build: -fsized-deallocation
// run:
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"

namespace {

struct alignas(256) Wide {
  char bytes[512];
};

template <typename New, typename Delete>
void Pair(New allocate, Delete release, size_t align) {
  for (size_t size = 0; size < 300000; size = size * 2 + 3) {
    void* p = allocate(size);
    void* q = allocate(size);
    CHECK(p && q && p != q);
    CHECK(((uintptr_t)p & (align - 1)) == 0 && ((uintptr_t)q & (align - 1)) == 0);
    CHECK(malloc_usable_size(p) >= size);
    Fill(p, size, 1);
    Fill(q, size, 2);
    CHECK(Verify(p, size, 1) == size && Verify(q, size, 2) == size);
    release(p, size);
    release(q, size);
  }
  release(nullptr, 0);
}

void AllForms() {
  const std::nothrow_t& nt = std::nothrow;
  Pair([](size_t n) { return operator new(n); }, [](void* p, size_t) { operator delete(p); }, 16);
  Pair([](size_t n) { return operator new[](n); }, [](void* p, size_t) { operator delete[](p); },
       16);
  Pair([](size_t n) { return operator new(n); }, [](void* p, size_t n) { operator delete(p, n); },
       16);
  Pair([](size_t n) { return operator new[](n); },
       [](void* p, size_t n) { operator delete[](p, n); }, 16);
  Pair([&](size_t n) { return operator new(n, nt); },
       [&](void* p, size_t) { operator delete(p, nt); }, 16);
  Pair([&](size_t n) { return operator new[](n, nt); },
       [&](void* p, size_t) { operator delete[](p, nt); }, 16);
  for (size_t align = 1; align <= 65536; align *= 2) {
    const std::align_val_t a{align};
    Pair([&](size_t n) { return operator new(n, a); },
         [&](void* p, size_t) { operator delete(p, a); }, align);
    Pair([&](size_t n) { return operator new[](n, a); },
         [&](void* p, size_t) { operator delete[](p, a); }, align);
    Pair([&](size_t n) { return operator new(n, a); },
         [&](void* p, size_t n) { operator delete(p, n, a); }, align);
    Pair([&](size_t n) { return operator new[](n, a); },
         [&](void* p, size_t n) { operator delete[](p, n, a); }, align);
    Pair([&](size_t n) { return operator new(n, a, nt); },
         [&](void* p, size_t) { operator delete(p, a, nt); }, align);
    Pair([&](size_t n) { return operator new[](n, a, nt); },
         [&](void* p, size_t) { operator delete[](p, a, nt); }, align);
  }
  // The blocks are malloc's own: programs mix the two families.
  free(operator new(100));
  operator delete(malloc(100));
  Wide* w = new Wide;
  CHECK(((uintptr_t)w & 255) == 0);
  delete w;
  Wide* many = new Wide[7];
  CHECK(((uintptr_t)many & 255) == 0);
  delete[] many;
}

int handler_calls;
void CountingHandler() {
  if (++handler_calls == 3) std::set_new_handler(nullptr);
}
void ThrowingHandler() {
  handler_calls++;
  throw std::bad_alloc();
}
struct OwnError {};
void OwnErrorHandler() { throw OwnError(); }

template <typename Error, typename Call>
bool Throws(Call call) {
  try {
    OpaquePtr(call());
  } catch (const Error&) {
    return true;
  }
  return false;
}

void Failures() {
  const size_t huge = Opaque((size_t)1 << 62);
  const std::align_val_t a{64};
  std::set_new_handler(nullptr);
  CHECK(Throws<std::bad_alloc>([&] { return operator new(huge); }));
  CHECK(Throws<std::bad_alloc>([&] { return operator new[](huge); }));
  CHECK(Throws<std::bad_alloc>([&] { return operator new(huge, a); }));
  CHECK(Throws<std::bad_alloc>([&] { return operator new[](huge, a); }));
  CHECK(Throws<std::bad_alloc>([&] { return operator new(Opaque(SIZE_MAX)); }));
  CHECK(operator new(huge, std::nothrow) == nullptr);
  CHECK(operator new[](huge, std::nothrow) == nullptr);
  CHECK(operator new(huge, a, std::nothrow) == nullptr);
  CHECK(operator new[](huge, a, std::nothrow) == nullptr);

  // The handler is called again and again until it gives up.
  handler_calls = 0;
  std::set_new_handler(CountingHandler);
  CHECK(Throws<std::bad_alloc>([&] { return operator new(huge); }));
  CHECK_EQ(handler_calls, 3);
  handler_calls = 0;
  std::set_new_handler(CountingHandler);
  CHECK(operator new(huge, std::nothrow) == nullptr);
  CHECK_EQ(handler_calls, 3);
  handler_calls = 0;
  std::set_new_handler(CountingHandler);
  CHECK(Throws<std::bad_alloc>([&] { return operator new[](huge, a); }));
  CHECK_EQ(handler_calls, 3);
  // What it throws comes through, and the nothrow form turns bad_alloc into a null pointer.
  handler_calls = 0;
  std::set_new_handler(ThrowingHandler);
  CHECK(Throws<std::bad_alloc>([&] { return operator new(huge); }));
  CHECK(operator new(huge, std::nothrow) == nullptr);
  CHECK_EQ(handler_calls, 2);
  std::set_new_handler(OwnErrorHandler);
  CHECK(Throws<OwnError>([&] { return operator new(huge); }));
  std::set_new_handler(nullptr);

  CHECK(Throws<std::bad_array_new_length>([&] { return new Wide[Opaque(SIZE_MAX / 4)]; }));
  CHECK(Throws<std::bad_array_new_length>([&] { return new long[Opaque(SIZE_MAX / 2)]; }));
  CHECK((new (std::nothrow) long[Opaque((size_t)1 << 59)]) == nullptr);
  CHECK(Throws<std::length_error>([&] {
    std::vector<char> v;
    v.resize(Opaque(SIZE_MAX / 2 + 10));
    return (void*)nullptr;
  }));
}

struct ThrowsInConstructor {
  char bytes[3000];
  ThrowsInConstructor() { throw OwnError(); }
};

// A constructor that throws gives the block back by the matching delete.
void ConstructorThrows() {
  long before = RssKb();
  for (int i = 0; i < 100000; i++) {
    bool caught = false;
    try {
      delete new ThrowsInConstructor;
    } catch (const OwnError&) {
      caught = true;
    }
    CHECK(caught);
  }
  CHECK(RssKb() - before < 100000);
}

}  // namespace

int main() {
  AllForms();
  Failures();
  ConstructorThrows();
  std::vector<std::string> v;
  for (int i = 0; i < 10000; i++) v.push_back(std::string(i % 100, 'x'));
  for (int i = 0; i < 10000; i++) CHECK(v[i].size() == (size_t)i % 100);
  puts("operators right");
  return 0;
}
