// SPDX-License-Identifier: Apache-2.0
// What is known of each descriptor number: who waits for it (netpoll.cc, with the slot's lock), and
// hints about what it is (fd_slots.cc). For these two files.
#pragma once

#include "sched/netpoll.h"
#include "sched/sched.h"

namespace undergo::sched {

struct FdSlot {
  sync::Mutex lock;
  uint32_t armed;     // lock; events registered and not yet reported
  FdWait* waits;      // lock; read without as a hint
  int peer;           // atomic hint; number of the other end + 1
  uint32_t users;     // lock; of a number of ours: operations that go on with it
  uint32_t activity;  // atomic; see NetpollActivity
  uint32_t balance;   // atomic hint; bytes that this process wrote into it and has not read
  uint32_t dry;       // atomic hint; the activity + 1 at which a read emptied it, 0: none did
  uint32_t reads;     // atomic hint; counts reads that did not try
  uint32_t own;       // atomic; `shared` when this process made it, 0: others have it
  FdKind kind;        // atomic hint
  bool stream;        // hint: a socket that keeps no messages apart
  bool handed;        // lock; read without as a hint; the last wait was ended by hand-over
  bool pending;       // lock; in the list of those to be registered
  uint32_t round;     // lock; of flushes, in which the last wait was put off; read without: a hint
};

inline constexpr uint32_t kFdChunk = 1024, kFdChunks = 1024;  // slots, chunks

// Null: nothing was ever kept there.
FdSlot* FindFdSlots(uint32_t chunk);
inline FdSlot* FindFdSlot(int fd) {
  auto n = static_cast<uint32_t>(fd);
  if (n >= kFdChunk * kFdChunks) return nullptr;
  FdSlot* chunk = FindFdSlots(n / kFdChunk);
  return chunk != nullptr ? &chunk[n % kFdChunk] : nullptr;
}
// Null: no memory, or no number.
FdSlot* MakeFdSlot(int fd);
// Calls f(fd, slot) for all at which somebody waits, with their locks held.
template <typename F>
void ForEachAwaited(F f) {
  for (uint32_t c = 0; c < kFdChunks; ++c) {
    FdSlot* chunk = FindFdSlots(c);
    if (chunk == nullptr) continue;
    for (uint32_t i = 0; i < kFdChunk; ++i) {
      FdSlot* s = &chunk[i];
      if (LoadRelaxed(&s->waits) == nullptr) continue;
      sync::MutexLock hold(s->lock);
      if (s->waits != nullptr) f(static_cast<int>(c * kFdChunk + i), s);
    }
  }
}
// In a forked child: nobody waits, nothing is known.
void ForgetFdSlots();

// Handlers of the program wait meanwhile, and the thread is not switched away from.
inline void EnterSection() {
  heap::thread_words.busy++;
  heap::thread_words.in_sched++;
  CompilerFence();
}

inline void LeaveSection() {
  CompilerFence();
  heap::thread_words.in_sched--;
  heap::EndBusy();
  RunDeferred();  // not while the thread has a wait linked
}

class Section {
 public:
  Section() { EnterSection(); }
  ~Section() { LeaveSection(); }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;
};

}  // namespace undergo::sched
