// SPDX-License-Identifier: Apache-2.0
// A futex lock of one word. It blocks the kernel thread; not recursive; zero is unlocked.
#pragma once

#include <cstdint>

#include "base/atomic.h"
#include "base/compiler.h"

namespace undergo::sync {

class Mutex {
 public:
  constexpr Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() {
    uint32_t free = kFree;
    if (UNDERGO_UNLIKELY(!CasAcqRel(&word_, &free, kLocked))) LockSlow();  // pairs: Unlock
  }
  bool TryLock() {
    uint32_t free = kFree;
    return CasAcqRel(&word_, &free, kLocked);  // pairs: Unlock
  }
  void Unlock() {
    if (UNDERGO_UNLIKELY(ExchangeAcqRel(&word_, kFree) == kContended)) WakeOne();  // pairs: Lock
  }
  // A hint.
  bool locked() const { return LoadRelaxed(&word_) != kFree; }
  // Only in a forked child, where the other threads are gone.
  void ResetAfterFork() { StoreRelaxed(&word_, kFree); }

 private:
  static constexpr uint32_t kFree = 0;
  static constexpr uint32_t kLocked = 1;
  static constexpr uint32_t kContended = 2;

  UNDERGO_COLD void LockSlow();
  UNDERGO_COLD void WakeOne();

  uint32_t word_ = kFree;
};

class MutexLock {
 public:
  explicit MutexLock(Mutex& m) : mutex_(m) { mutex_.Lock(); }
  ~MutexLock() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace undergo::sync
