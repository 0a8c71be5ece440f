// SPDX-License-Identifier: Apache-2.0
// Cancellation points on hot paths.
#pragma once

#include <pthread.h>

#include "base/compiler.h"
#include "sched/tcb.h"

namespace undergo::posix {

// As pthread_testcancel, which it calls when there is something to do.
inline void TestCancel() {
  constexpr uint32_t kBits = sched::kCanceled | sched::kCancelDisabled;
  auto block = reinterpret_cast<Addr>(__builtin_thread_pointer());
  if (UNDERGO_UNLIKELY((LoadRelaxed(sched::CancelField(block)) & kBits) == sched::kCanceled)) {
    pthread_testcancel();
  }
}

}  // namespace undergo::posix
