// SPDX-License-Identifier: Apache-2.0
// Handlers that interrupt a slow path of the heap, so that a jump out of them finds it. How it
// works stands in jump.cc.
#pragma once

#include <ucontext.h>

#include "heap/thread_words.h"

namespace undergo::posix {

// Around such a handler; on its stack.
class SlowPathNote {
 public:
  explicit SlowPathNote(ucontext_t* context)
      : context_(context),
        busy_(heap::thread_words.busy),
        in_hook_(heap::thread_words.in_hook),
        outer_(static_cast<SlowPathNote*>(heap::thread_words.interrupted)) {
    heap::thread_words.interrupted = this;
  }
  ~SlowPathNote() { heap::thread_words.interrupted = outer_; }
  SlowPathNote(const SlowPathNote&) = delete;
  SlowPathNote& operator=(const SlowPathNote&) = delete;

  ucontext_t* context() const { return context_; }
  uint32_t busy() const { return busy_; }
  uint32_t in_hook() const { return in_hook_; }
  uint32_t depth() const { return busy_ + in_hook_; }
  SlowPathNote* outer() const { return outer_; }

 private:
  ucontext_t* context_;
  uint32_t busy_, in_hook_;  // as the handler found them
  SlowPathNote* outer_;
};

// In the trampoline: whether a slow path was interrupted that no handler further out knows of.
inline bool InterruptsSlowPath() {
  uint32_t depth = heap::thread_words.busy + heap::thread_words.in_hook;
  if (UNDERGO_LIKELY(depth == 0)) return false;
  auto* note = static_cast<SlowPathNote*>(heap::thread_words.interrupted);
  return note == nullptr || depth > note->depth();
}

// Body of heap::on_jump.
void JumpNow();

}  // namespace undergo::posix
