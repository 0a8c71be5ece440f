// SPDX-License-Identifier: Apache-2.0
// Contended half of the futex lock: spin while the owner is likely to finish, then sleep.
#include "sync/mutex.h"

#include "plat/futex.h"

namespace undergo::sync {

void Mutex::LockSlow() {
  constexpr int kSpins = 200;  // about two microseconds, the length of the sections it guards
  for (int i = 0; i < kSpins; ++i) {
    if (LoadRelaxed(&word_) == kFree && TryLock()) return;
    CpuRelax();
  }
  while (ExchangeAcqRel(&word_, kContended) != kFree) {  // pairs: Unlock
    plat::FutexWait(&word_, kContended);
  }
}

void Mutex::WakeOne() { plat::FutexWake(&word_, 1); }

}  // namespace undergo::sync
