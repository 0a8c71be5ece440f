// SPDX-License-Identifier: Apache-2.0
// Calls with a mask of their own.
#pragma once

#include <signal.h>

#include "sched/g.h"

namespace undergo::posix {

// The calling thread's G if it is on its own kernel thread, in any state; null: a plain thread, or
// a child of vfork.
sched::G* SignalSelf();

// Around a real call that takes a signal mask (ppoll, pselect, epoll_pwait, sigsuspend): what is
// sent to the thread meanwhile goes by that mask. Null: nothing.
class TemporaryMask {
 public:
  explicit TemporaryMask(const sigset_t* mask);
  ~TemporaryMask();
  TemporaryMask(const TemporaryMask&) = delete;
  TemporaryMask& operator=(const TemporaryMask&) = delete;

  // A handler ran already: the call is not to be made, the result is EINTR.
  bool interrupted() const { return interrupted_; }

 private:
  void SetOwn(uint64_t mask);

  sched::G* g_;
  uint64_t before_ = 0;
  bool interrupted_ = false;
};

}  // namespace undergo::posix
