// SPDX-License-Identifier: Apache-2.0
// How a thread waits, and how it is woken: the base of everything that blocks in posix/.
//
//   Waiter w(WaitReason::kMutex);
//   lock the queue; is the condition true already? else:
//   w.Arm();  enter &w into the queue;  unlock the queue
//   Wake why = w.Wait(deadline);
//   if (why != Wake::kReady) lock the queue, take &w out if it is still in, unlock
//
// and who makes the condition true takes a Waiter out of the queue and calls End(kReady) under the
// queue's lock; false means that a deadline or an interruption came first: take another.
//
// A thread with a G parks the G. Any other (threads that glibc makes by itself, raw clone, pinned
// Gs, handlers in a slow path of the heap) sleeps in a futex. A Waiter lies on the stack of who
// waits.
//
// Handlers of the program are held back from Arm() on until the wait has ended by End(): one that
// jumps away, or waits, would leave the Waiter in its queue. When it ended otherwise they wait
// until EndHold(), which posix::AttendToInterrupt and the destructor call: first take it out of the
// queue.
#pragma once

#include "sched/g.h"

namespace undergo::sched {

inline constexpr uint64_t kNever = 0;  // as a deadline: none

// The running thread's Waiter is in no queue any more: handlers that were held back run.
void EndHold();

class Waiter {
 public:
  explicit Waiter(WaitReason why) : g_(Current()), why_(why) {}
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() {
    if (UNDERGO_UNLIKELY(heap::thread_words.waiter == this)) EndHold();
  }

  // A thread without a G may be cancelled in Wait(), as in a cancellation point of libc's: it is
  // unwound from there, and Abandon() must follow then.
  void AllowCancel() { cancellable_ = true; }
  // True when somebody has ended the wait. No handler of the program has run yet.
  bool Abandon();

  // From here on End() ends the wait. After it, Wait() or Disarm() must follow.
  void Arm();
  // Sleeps until End(), the deadline (monotonic nanoseconds; kNever) or, if `interruptible`, until
  // the thread is interrupted (sched::Interrupt), at once if it already is.
  Wake Wait(uint64_t deadline, bool interruptible = false);
  // No need to wait: as Wait(), but returns at once unless somebody has ended the wait already;
  // then true.
  bool Disarm();
  // Any thread, also in a signal handler. True for the one call that ends the wait.
  // `next`: the woken G runs next on this P, in the slice of the caller.
  bool End(Wake why, bool next = true);

  // In a handler on the thread that waits, which is held back: ends the wait if that may be.
  void Disturb();
  // The same as End for a thread that is in the scheduler, for Wake::kReady.
  void EndInScheduler(P* p);

  // In the scheduler (sched.h), for a Waiter with a G: as Wait(), and leaves it. Nothing can come
  // between Arm() and the wait then.
  Wake WaitInScheduler(P* p, uint64_t deadline, bool interruptible);
  // The first half of End(): true when the wait is the caller's to end. A thread without a G is
  // awake then; a G goes into `ready`, for the caller to make runnable.
  bool Claim(Wake why, GQueue* ready);

  bool ended() const { return LoadAcquire(word()) != static_cast<uint32_t>(Wake::kArmed); }
  G* g() const { return g_; }

  // For the queue.
  Waiter* next = nullptr;
  Waiter* prev = nullptr;
  const void* key = nullptr;
  uint64_t detail = 0;

 private:
  uint32_t* word() const { return g_ != nullptr ? &g_->wake : const_cast<uint32_t*>(&own_); }

  G* g_;
  WaitReason why_;
  uint32_t own_ = 0;  // atomic futex, for threads without a G
  bool interruptible_ = false;
  bool cancellable_ = false;
};

// Ends interruptible waits of the thread until Calm: something wants its attention.
// True when one did.
bool Interrupt(G* g);
void Calm(G* g);

enum class Yielding : uint8_t {
  kBehindNeighbours,  // those of the same P
  kBehindAll,  // in the global queue, too, which a P with work of its own looks at now and then
               // only
  kAnyway,     // the same, even if there is nobody: it may go on on another M
};
// Lets others run. False when the thread has no G, or there is nobody.
bool Yield(Yielding how = Yielding::kBehindNeighbours);

const char* NameOf(WaitReason why);

// The G whose wait somebody claimed (ClaimWake) runs soon. Any thread.
void MakeReady(G* g, bool next);
// A new thread begins soon, after those that were made before it.
void MakeNewReady(G* g);

}  // namespace undergo::sched
