// SPDX-License-Identifier: Apache-2.0
// What the heap keeps for each thread: one block of thread-local words.
#pragma once

#include "base/atomic.h"
#include "base/compiler.h"

namespace undergo::heap {

struct MCache;

// Per-thread words. `busy` counts entries into slow paths: a signal handler that finds it set must
// not touch the mcache. `exited` says that the thread gave its mcache back for good. `in_mheap`
// says that it may hold the page heap's lock.
struct ThreadWords {
  MCache* mcache;
  uint32_t busy;
  uint32_t exited;
  uint32_t in_mheap;  // the thread may hold the page heap's lock
};
extern UNDERGO_TLS ThreadWords thread_words;

class BusyScope {
 public:
  BusyScope() {
    thread_words.busy++;
    CompilerFence();
  }
  ~BusyScope() {
    CompilerFence();
    thread_words.busy--;
  }
  BusyScope(const BusyScope&) = delete;
  BusyScope& operator=(const BusyScope&) = delete;
};

}  // namespace undergo::heap
