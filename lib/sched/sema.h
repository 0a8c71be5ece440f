// SPDX-License-Identifier: Apache-2.0
// Queues of waiting threads, found by the address of what they wait for: mutexes, conditions,
// semaphores and futexes need no memory of ours in the program's objects.
//
// All that happens to a queue happens between the constructor and Leave(), or the destructor, of a
// Visit, which locks it:
//
//   Sleeper s(WaitReason::kMutex, word);
//   Visit v(word);
//   is the condition true already? return. else:
//   Wake why = v.Wait(&s, deadline, interruptible);     // leaves
//
//   Visit v(word);
//   make the condition true;
//   Sleeper* woken = v.WakeOne();
//
// Threads with and without a G mix in a queue. First come, first served.
#pragma once

#include "sched/park.h"
#include "sched/sched.h"

namespace undergo::sched {

// One thread in a queue, on the stack of that thread. Made before the visit.
class Sleeper {
 public:
  Sleeper(WaitReason why, const void* on) : key(on), waiter(why) {}
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  G* g() const { return waiter.g(); }  // null: a thread without
  // For threads without a G, see Waiter. Abandon() must follow an unwinding.
  void AllowCancel() { waiter.AllowCancel(); }

  const void* key;      // atomic; changes with both queues locked
  uint64_t detail = 1;  // the waiter's, before it waits; what it means is the object's business
  const void* then = nullptr;  // the same: what it wants when woken; a condition's mutex
  bool granted = false;  // the waker's, with the queue locked: what was waited for is handed over
  bool more = false;     // the same: others were left in the queue

 private:
  friend class Visit;
  friend class SleepQueues;
  friend bool Abandon(Sleeper* s);
  Waiter waiter;
  bool queued = false;      // the rest: lock of the bucket
  Sleeper* next = nullptr;  // ring of those with this key
  Sleeper* prev = nullptr;
  Sleeper* chain = nullptr;  // of the first of a ring: first of the next key in the bucket
};

class Visit {
 public:
  // Waits for the queue's lock. From here to Leave() the thread is in the scheduler: nothing of the
  // program runs on it, and no other Visit may begin.
  explicit Visit(const void* key) : Visit(key, key) {}
  // Locks the queue of `other` too, for Requeue.
  Visit(const void* key, const void* other);
  ~Visit() {
    if (inside_) Leave();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  // Puts the calling thread into the queue, at its end or its front, and sleeps until a wake, the
  // deadline (monotonic ns, kNever) or an interruption. Out of the queue and out of the visit.
  Wake Wait(Sleeper* s, uint64_t deadline, bool interruptible, bool front = false) {
    Queue(s, front);
    return Sleep(s, deadline, interruptible);
  }
  // The two halves. In between, what the caller held may be released; MoveTo goes on with another
  // queue for that.
  void Queue(Sleeper* s, bool front = false);
  Wake Sleep(Sleeper* s, uint64_t deadline, bool interruptible);
  void MoveTo(const void* key);

  bool Empty() const { return First() == nullptr; }
  // The first one, to look at or to change before it is woken.
  Sleeper* First() const;
  // Wakes the first one that is still to be woken. `prepare(s)` runs with the queue locked, before
  // s can run and maybe in vain. False: there was none.
  template <typename F>
  bool WakeOne(F prepare) {
    while (Sleeper* s = First()) {
      Take(s);
      s->more = First() != nullptr;
      prepare(s);
      if (s->waiter.Claim(Wake::kReady, &ready_)) return true;
    }
    return false;
  }
  bool WakeOne() {
    return WakeOne([](Sleeper*) {});
  }
  // At most n of those whose detail has one of these bits in common. How many.
  uint32_t WakeMany(uint32_t n, uint64_t bits = ~uint64_t{0});
  void WakeAll() { WakeMany(~uint32_t{0}); }
  // Locks the queue of `other` too, for Requeue. False: the first queue was unlocked meanwhile.
  bool Reach(const void* other);
  // At most n of them go on to sleep in the other queue. How many.
  uint32_t Requeue(uint32_t n);

  // Wakes who was to be woken.
  void Leave();

 private:
  friend class SleepQueues;
  void Lock();
  void Unlock();
  void Take(Sleeper* s);

  G* g_;
  P* p_;
  const void* key_;
  const void* other_;
  uint64_t mask_ = 0;  // of signals, before; without a G
  GQueue ready_;
  bool inside_ = true;
  bool locked_ = false;
};

// The calling thread was unwound out of its sleep: it leaves its queue. True when somebody had
// woken it already.
bool Abandon(Sleeper* s);

// False: nobody sleeps there. A hint as far as the caller is not ordered behind the sleepers.
bool MaySleep(const void* key);

// When the scheduler starts.
void PrepareSemaForForks();
// In a forked child: only the calling thread is left.
void SemaAfterFork();

}  // namespace undergo::sched
