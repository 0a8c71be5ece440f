// SPDX-License-Identifier: Apache-2.0
// Cancellation points on hot paths.
#pragma once

#include <pthread.h>

#include "base/compiler.h"
#include "sched/tcb.h"

namespace undergo::posix {

// Whether the next cancellation point would end the thread.
inline bool CancelPending() {
  constexpr uint32_t kBits = sched::kCanceled | sched::kCancelDisabled;
  auto block = reinterpret_cast<Addr>(__builtin_thread_pointer());
  return UNDERGO_UNLIKELY((LoadRelaxed(sched::CancelField(block)) & kBits) == sched::kCanceled);
}

// As pthread_testcancel, which it calls when there is something to do.
inline void TestCancel() {
  if (CancelPending()) pthread_testcancel();
}

}  // namespace undergo::posix
