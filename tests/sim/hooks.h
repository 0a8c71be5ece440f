// SPDX-License-Identifier: Apache-2.0
// Included before everything else in all files of the simulation, those of lib/ as well: each
// atomic access and fence is a point where the executor may go on with another thread, and calls
// of the kernel go to the simulated one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plat/syscall.h"

namespace undergo::sim {

// Another thread may run here. `what` and `at` are for the trace.
void Point(const char* what, const volatile void* at);
// All stores of the running thread become visible; before each fence and read-modify-write.
void Flush();
// A store that only the running thread sees for a while; it has been executed already.
void Buffer(void* at, size_t size, uint64_t old, uint64_t value);
long KernelCall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);

inline int Fenced(const char* what, const volatile void* at) {
  Point(what, at);
  Flush();
  return 0;
}

template <typename T, typename V>
__attribute__((always_inline)) inline void Store(T* p, V* v, int order) {
  static_assert(sizeof(T) <= 8);
  Point("store", p);
  uint64_t old = 0, value = 0;
  __builtin_memcpy(&old, p, sizeof *p);
  __atomic_store(p, v, __ATOMIC_SEQ_CST);
  __builtin_memcpy(&value, p, sizeof *p);
  if (order == __ATOMIC_SEQ_CST) {
    Flush();
  } else {
    Buffer(p, sizeof *p, old, value);
  }
}

template <typename T, typename V>
__attribute__((always_inline)) inline void StoreN(T* p, V v, int order) {
  T t = static_cast<T>(v);
  Store(p, &t, order);
}

}  // namespace undergo::sim

namespace undergo::plat {
template <typename... Args>
inline long SimSyscall(long nr, Args... args) {
  return sim::KernelCall(nr, SyscallArg(args)...);
}
}  // namespace undergo::plat

#define Syscall SimSyscall
#define undergo_switch undergo_sim_switch  // tests/sim/executor.cc

// clang-format off
#define __atomic_load(p, v, o) (::undergo::sim::Point("load", p), __atomic_load(p, v, o))
#define __atomic_load_n(p, o) (::undergo::sim::Point("load", p), __atomic_load_n(p, o))
#define __atomic_store(p, v, o) ::undergo::sim::Store(p, v, o)
#define __atomic_store_n(p, v, o) ::undergo::sim::StoreN(p, v, o)
#define __atomic_exchange_n(p, v, o) \
  (::undergo::sim::Fenced("exchange", p), __atomic_exchange_n(p, v, o))
#define __atomic_fetch_or(p, v, o) (::undergo::sim::Fenced("or", p), __atomic_fetch_or(p, v, o))
#define __atomic_fetch_and(p, v, o) (::undergo::sim::Fenced("and", p), __atomic_fetch_and(p, v, o))
#define __atomic_fetch_add(p, v, o) (::undergo::sim::Fenced("add", p), __atomic_fetch_add(p, v, o))
#define __atomic_fetch_sub(p, v, o) (::undergo::sim::Fenced("sub", p), __atomic_fetch_sub(p, v, o))
#define __atomic_compare_exchange_n(p, e, v, w, s, f) \
  (::undergo::sim::Fenced("cas", p), __atomic_compare_exchange_n(p, e, v, w, s, f))
#define __atomic_thread_fence(o) (void)::undergo::sim::Fenced("fence", nullptr)
#define __builtin_ia32_pause() ::undergo::sim::Point("pause", nullptr)
// clang-format on
