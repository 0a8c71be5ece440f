// SPDX-License-Identifier: Apache-2.0
// Frees that must not be: one line that tells the case, then the end, unless tolerated.

#include "heap/bad_free.h"

#include <criterion/criterion.h>

#include "heap/malloc.h"
#include "heap/mcache.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

template <typename F>
void ExpectReport(const char* what, const char* piece, F f) {
  LastWords words = InChild(f);
  cr_expect(words.aborted(), "%s: status %#x, '%s'", what, words.status, words.text.c_str());
  cr_expect(words.lines() == 1, "%s: %zu lines: '%s'", what, words.lines(), words.text.c_str());
  cr_expect(words.text.rfind("undergo: ", 0) == 0, "%s: '%s'", what, words.text.c_str());
  cr_expect(words.text.find(piece) != std::string::npos, "%s: no '%s' in '%s'", what, piece,
            words.text.c_str());
  cr_expect(words.text.find("badfree=ignore") != std::string::npos);
  // Tolerated, the program goes on and the heap still works.
  words = InChild([&] {
    tolerate_bad_free = true;
    f();
    std::vector<Block> blocks;
    for (uint64_t i = 0; i < 3000; ++i) blocks.push_back(NewBlock(1 + i * 7 % 900, i));
    for (const Block& b : blocks) {
      if (Verify(b.p, b.size, b.tag) != b.size) _exit(9);
    }
  });
  cr_expect(words.exited(), "%s tolerated: status %#x, '%s'", what, words.status,
            words.text.c_str());
  cr_expect(words.lines() == 1 && words.text.find(piece) != std::string::npos, "%s: '%s'", what,
            words.text.c_str());
  cr_expect(words.text.find("badfree=ignore") == std::string::npos);
}

void* Move(void* p, ptrdiff_t by) { return OpaquePtr(static_cast<char*>(p) + by); }

void FreeTwice(void* p) {
  Free(p);
  Free(OpaquePtr(p));
}

}  // namespace

TestSuite(bad_free, .timeout = 60);

Test(bad_free, double_free) {
  for (size_t size : {size_t{16}, size_t{100}, size_t{3000}, size_t{20000}, size_t{65536}}) {
    char piece[64];
    snprintf(piece, sizeof piece, "size class %zu", GoodSize(size));
    ExpectReport("double free", "double free", [=] { FreeTwice(Malloc(size)); });
    ExpectReport("double free", piece, [=] { FreeTwice(Malloc(size)); });
  }
  ExpectReport("large", "double free", [] { FreeTwice(Malloc(200000)); });
  ExpectReport("large, its place used again by a small span", "", [] {
    void* p = Malloc(200000);
    Free(p);
    Free(Move(p, 0));
  });
}

Test(bad_free, double_free_by_another_thread) {
  ExpectReport("both remote", "double free", [] {
    void* p = Malloc(100);
    std::thread([&] { FreeTwice(p); }).join();
  });
  ExpectReport("first local, then remote", "double free", [] {
    void* p = Malloc(100);
    Free(p);
    std::thread([&] { Free(p); }).join();
  });
  ExpectReport("first remote, then local: noticed when the owner looks", "double free", [] {
    void* p = Malloc(100);
    std::thread([&] { Free(p); }).join();
    Free(OpaquePtr(p));
    thread_words.busy++;
    {
      sync::MutexLock hold(thread_words.mcache->lock);
      FlushLocked(thread_words.mcache);
    }
    thread_words.busy--;
  });
}

Test(bad_free, interior_pointers) {
  for (size_t size :
       {size_t{32}, size_t{100}, size_t{3000}, size_t{20000}, size_t{65536}, size_t{200000}}) {
    for (ptrdiff_t by : {1, 8, 16}) {
      ExpectReport("interior", "interior pointer", [=] { Free(Move(Malloc(size), by)); });
      ExpectReport("interior, remote", "interior pointer", [=] {
        void* p = Move(Malloc(size), by);
        std::thread([&] { Free(p); }).join();
      });
    }
  }
  ExpectReport("says where", "16 bytes into the object at 0x", [] { Free(Move(Malloc(48), 16)); });
}

Test(bad_free, wild_pointers) {
  static char global[64];
  ExpectReport("before the first allocation", "invalid pointer", [] { Free(OpaquePtr(global)); });
  for (Addr a : {Addr{16}, Addr{1} << 47, ~Addr{15}, AddressOf(global),
                 AddressOf(__builtin_frame_address(0))}) {
    ExpectReport("wild", "invalid pointer", [=] {
      Free(Malloc(1));
      Free(OpaquePtr(reinterpret_cast<void*>(a)));
    });
  }
  ExpectReport("a free slice of the heap", "invalid pointer",
               [] { Free(Move(Malloc(16), 5 * kSliceSize)); });
}

// The unused end of a span belongs to no slot.
Test(bad_free, tail_of_a_span) {
  ExpectReport("tail", "interior pointer", [] {
    const SizeClass& c = kClasses[ClassOf(3000)];
    void* p = Malloc(c.size);
    Addr tail = SpanAddr(FindSpan(AddressOf(p))) + size_t{c.slots} * c.size;
    Free(OpaquePtr(reinterpret_cast<void*>(tail)));
  });
}

Test(bad_free, usable_size_and_realloc) {
  static char global[64];
  ExpectReport("usable of wild", "usable(): invalid pointer",
               [] { UsableSize(OpaquePtr(global), nullptr, "usable"); });
  ExpectReport("usable of interior", "usable(): interior pointer",
               [] { UsableSize(Move(Malloc(64), 8), nullptr, "usable"); });
  ExpectReport("usable of freed", "usable(): freed object", [] {
    void* p = Malloc(64);
    Free(p);
    UsableSize(OpaquePtr(p), nullptr, "usable");
  });
  ExpectReport("realloc of wild", "realloc(): invalid pointer",
               [] { (void)!Realloc(OpaquePtr(global), 100, nullptr); });
  ExpectReport("realloc of freed", "realloc(): freed object", [] {
    void* p = Malloc(64);
    Free(p);
    (void)!Realloc(OpaquePtr(p), 100, nullptr);
  });
}

namespace {

int foreign_frees;
char foreign[32];
bool FreeForeign(void* p) { return p == foreign && ++foreign_frees > 0; }
bool ForeignSize(void* p, size_t* size) {
  *size = 24;
  return p == foreign;
}

}  // namespace

Test(bad_free, pointers_of_another_allocator) {
  heap_client = {FreeForeign, ForeignSize};
  Free(OpaquePtr(foreign));
  Free(Malloc(1));
  Free(OpaquePtr(foreign));
  cr_expect(foreign_frees == 2);
  cr_expect(UsableSize(foreign, nullptr, "usable") == 24);
  void* p = Realloc(foreign, 200, nullptr);
  cr_expect(p != nullptr && foreign_frees == 3);
  cr_expect(FindSpan(AddressOf(p)) != nullptr);
  ExpectReport("wild", "invalid pointer", [] { Free(OpaquePtr(foreign + 16)); });
}

Test(bad_free, null_is_nothing) {
  Free(nullptr);
  FreeSlow(nullptr, nullptr);
  Free(Malloc(1));
  Free(nullptr);
}
