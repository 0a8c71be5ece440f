// SPDX-License-Identifier: Apache-2.0
// Atomic access to plain words. No default ordering exists: the name says which one it is, and
// every use that is not relaxed names its partner in a comment.
#pragma once

#include <cstdint>

namespace undergo {

// The generic builtins take scoped enumerations as well.
template <typename T>
inline T LoadRelaxed(const T* p) {
  T v;
  __atomic_load(p, &v, __ATOMIC_RELAXED);
  return v;
}
template <typename T>
inline T LoadAcquire(const T* p) {
  T v;
  __atomic_load(p, &v, __ATOMIC_ACQUIRE);
  return v;
}
template <typename T, typename V>
inline void StoreRelaxed(T* p, V v) {
  T t = static_cast<T>(v);
  __atomic_store(p, &t, __ATOMIC_RELAXED);
}
template <typename T, typename V>
inline void StoreRelease(T* p, V v) {
  T t = static_cast<T>(v);
  __atomic_store(p, &t, __ATOMIC_RELEASE);
}
template <typename T, typename V>
inline T ExchangeAcqRel(T* p, V v) {
  return __atomic_exchange_n(p, static_cast<T>(v), __ATOMIC_ACQ_REL);
}
template <typename T, typename V>
inline T FetchOrAcqRel(T* p, V v) {
  return __atomic_fetch_or(p, static_cast<T>(v), __ATOMIC_ACQ_REL);
}
template <typename T, typename V>
inline T FetchAndAcqRel(T* p, V v) {
  return __atomic_fetch_and(p, static_cast<T>(v), __ATOMIC_ACQ_REL);
}
template <typename T, typename V>
inline T FetchAddRelaxed(T* p, V v) {
  return __atomic_fetch_add(p, static_cast<T>(v), __ATOMIC_RELAXED);
}
template <typename T, typename V>
inline T FetchAddAcqRel(T* p, V v) {
  return __atomic_fetch_add(p, static_cast<T>(v), __ATOMIC_ACQ_REL);
}
// On failure *expected receives the value found.
template <typename T, typename V>
inline bool CasAcqRel(T* p, T* expected, V desired) {
  return __atomic_compare_exchange_n(p, expected, static_cast<T>(desired), false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE);
}

inline void CompilerFence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void CpuRelax() { __builtin_ia32_pause(); }

}  // namespace undergo
