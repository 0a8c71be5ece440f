// SPDX-License-Identifier: Apache-2.0
// Words that went into the kernel while a mark with tracked writes runs. What the kernel held at
// its begin was read from /proc (gc/kernel_roots.h); a word that comes later may be the only
// pointer to an object whose other pointers, already read, are overwritten by then.
#pragma once

#include "base/atomic.h"
#include "base/types.h"

namespace undergo::gc {

// A ring. Its places are never used anew by position, so that a thread that was held up between
// the two steps of Add for a whole cycle overwrites nothing of the next one.
class KernelWords {
 public:
  static constexpr uint32_t kMax = 4096;

  // Coordinator, before the mark: words before this do not matter any more.
  void Begin() { from_ = LoadRelaxed(&next_); }
  // Any thread. A thread that is stopped before the word is in its place still has it in a
  // register.
  void Add(uint64_t word) {
    uint32_t i = FetchAddRelaxed(&next_, 1u);
    StoreRelaxed(&words_[i % kMax], word);
  }
  // World stopped. False when there were too many to be kept.
  template <typename F>
  bool ForEach(F f) const {
    uint32_t end = LoadRelaxed(&next_);
    if (end - from_ > kMax) return false;
    for (uint32_t i = from_; i != end; ++i) f(LoadRelaxed(&words_[i % kMax]));
    return true;
  }

 private:
  uint32_t from_ = 0;          // coordinator
  uint32_t next_ = 0;          // atomic
  uint64_t words_[kMax] = {};  // atomic
};
extern constinit KernelWords kernel_words;

// The word at `at` enters the kernel. To be called before the call that hands it over, and again
// after it if this returned false: no mark runs. Any thread, signal handlers too; `at` may be any
// address.
bool NoteKernelWord(const void* at);

}  // namespace undergo::gc
