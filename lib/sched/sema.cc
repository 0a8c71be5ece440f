// SPDX-License-Identifier: Apache-2.0
// Address-keyed wait queues.
//
// A fixed table of buckets, chosen by a hash of the address. A bucket holds a chain of keys, each
// represented by the first of its sleepers; all sleepers of a key form a ring. So finding a queue
// costs the number of *keys* in its bucket, and putting in, taking out and waking cost nothing
// more, however many threads wait at one place. Pages of the table that nobody needs stay
// untouched.
//
// The thread is in a scheduler section while it holds a bucket's lock, so it is not preempted there
// and handlers wait; threads without a G have signals blocked instead. Who is woken is claimed with
// the lock held (that decides against deadlines and interruptions) and made runnable without it.
//
// Rejected: a queue in the program's object (its 40 or 48 bytes are read by libc), one list for
// all keys of a bucket (10,000 threads at one condition would be walked by its neighbours), a
// treap as Go's semaphores have (pays beyond 100 keys in a bucket, that is a million).
// Sources: futex(2); Go's runtime/sema.go; Pizlo's parking lot.
#include "sched/sema.h"

#include <sys/mman.h>

#include "base/assert.h"
#include "plat/syscall.h"
#include "world/record.h"

namespace undergo::sched {

namespace {

struct Bucket {
  sync::Mutex lock;
  Sleeper* keys;  // atomic; written with the lock held
};

constexpr uint32_t kBucketBits = 14;
// Pages of its own, which the kernel clears in forked children: to look at all of them there would
// cost more than the rest of a fork.
alignas(kOsPageSize) constinit Bucket buckets[1u << kBucketBits] = {};
static_assert(sizeof buckets % kOsPageSize == 0);
constinit bool cleared_by_kernel = false;  // start_lock

Bucket* BucketOf(const void* key) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;
  return &buckets[(reinterpret_cast<Addr>(key) * kGolden) >> (64 - kBucketBits)];
}

}  // namespace

// Rings and chains; all with the bucket's lock held.
class SleepQueues {
 public:
  static Sleeper** Link(Bucket* b, const void* key) {
    Sleeper** link = &b->keys;
    while (*link != nullptr && (*link)->key != key) link = &(*link)->chain;
    return link;
  }

  static void Put(Bucket* b, Sleeper* s, bool front) {
    s->queued = true;
    Sleeper** link = Link(b, s->key);
    Sleeper* first = *link;
    if (first == nullptr) {
      s->next = s->prev = s;
      s->chain = nullptr;
      StoreRelease(link, s);  // pairs: MaySleep
      return;
    }
    s->next = first;
    s->prev = first->prev;
    s->prev->next = first->prev = s;
    if (!front) return;
    s->chain = first->chain;
    StoreRelease(link, s);  // pairs: MaySleep
  }

  static void Take(Bucket* b, Sleeper* s) {
    s->queued = false;
    Sleeper** link = Link(b, s->key);
    if (s->next == s) {
      StoreRelease(link, s->chain);  // pairs: MaySleep
      return;
    }
    s->next->prev = s->prev;
    s->prev->next = s->next;
    if (*link != s) return;
    s->next->chain = s->chain;
    StoreRelease(link, s->next);  // pairs: MaySleep
  }

  // A sleeper whose wait ended by itself leaves its queue, wherever it is by now.
  static void Withdraw(Sleeper* s) {
    for (;;) {
      const void* key = LoadAcquire(&s->key);  // pairs: Requeue
      Visit v(key);
      if (LoadAcquire(&s->key) != key) continue;  // pairs: Requeue
      if (s->queued) v.Take(s);
      return;
    }
  }
};

Visit::Visit(const void* key, const void* other)
    : g_(Current()), p_(nullptr), key_(key), other_(other) {
  if (UNDERGO_LIKELY(g_ != nullptr)) {
    p_ = EnterSched(g_);
  } else {
    mask_ = world::SetSignalMask(world::kAllButStopSignal);
    heap::thread_words.busy++;
    CompilerFence();
  }
  Lock();
}

// Two locks are taken in the order of their addresses.
void Visit::Lock() {
  Bucket* a = BucketOf(key_);
  Bucket* b = BucketOf(other_);
  if (UNDERGO_UNLIKELY(b < a)) b->lock.Lock();
  a->lock.Lock();
  if (UNDERGO_UNLIKELY(b > a)) b->lock.Lock();
  locked_ = true;
}

void Visit::Unlock() {
  if (!locked_) return;
  Bucket* a = BucketOf(key_);
  Bucket* b = BucketOf(other_);
  a->lock.Unlock();
  if (UNDERGO_UNLIKELY(b != a)) b->lock.Unlock();
  locked_ = false;
}

void Visit::MoveTo(const void* key) {
  Unlock();
  key_ = other_ = key;
  Lock();
}

bool Visit::Reach(const void* other) {
  Bucket* b = BucketOf(other);
  bool same = b == BucketOf(key_);
  UNDERGO_ASSERT(other_ == key_);
  if (same || b->lock.TryLock()) {
    other_ = other;
    return true;
  }
  Unlock();
  other_ = other;
  Lock();
  return false;
}

void Visit::Take(Sleeper* s) { SleepQueues::Take(BucketOf(key_), s); }

Sleeper* Visit::First() const { return *SleepQueues::Link(BucketOf(key_), key_); }

void Visit::Queue(Sleeper* s, bool front) {
  UNDERGO_ASSERT(s->waiter.g() == g_);
  s->granted = s->more = false;
  s->waiter.Arm();
  SleepQueues::Put(BucketOf(key_), s, front);
}

Wake Visit::Sleep(Sleeper* s, uint64_t deadline, bool interruptible) {
  Wake why;
  if (g_ != nullptr) {
    Unlock();
    // Who was woken meanwhile goes first: the switch is theirs, and needs no other M.
    if (p_ != nullptr && ready_.size == 1) {
      G* next = ready_.Pop();
      next->state = GState::kRunnable;
      RunqPut(p_, next, true);
    }
    while (G* g = ready_.Pop()) MakeRunnable(p_, g, true);
    inside_ = false;
    why = s->waiter.WaitInScheduler(p_, deadline, interruptible);
  } else {
    Leave();
    why = s->waiter.Wait(deadline, interruptible);
  }
  if (UNDERGO_UNLIKELY(why != Wake::kReady)) SleepQueues::Withdraw(s);
  return why;
}

uint32_t Visit::WakeMany(uint32_t n, uint64_t bits) {
  uint32_t woken = 0;
  Sleeper* s = First();
  if (s == nullptr || n == 0) return 0;
  Sleeper* last = s->prev;
  for (;;) {
    Sleeper* next = s->next;
    bool was_last = s == last;
    if ((s->detail & bits) != 0) {
      Take(s);
      woken += s->waiter.Claim(Wake::kReady, &ready_);
    }
    if (was_last || woken == n) return woken;
    s = next;
  }
}

uint32_t Visit::Requeue(uint32_t n) {
  uint32_t moved = 0;
  for (; moved < n; ++moved) {
    Sleeper* s = First();
    if (s == nullptr || other_ == key_) break;
    Take(s);
    StoreRelease(&s->key, other_);  // pairs: Withdraw
    SleepQueues::Put(BucketOf(other_), s, false);
  }
  return moved;
}

void Visit::Leave() {
  Unlock();
  inside_ = false;
  if (UNDERGO_LIKELY(g_ != nullptr)) {
    // All but the last one go behind: the first to have waited runs first.
    bool next = ready_.size == 1;
    while (G* g = ready_.Pop()) MakeRunnable(p_, g, next);
    LeaveSched(g_);
    return;
  }
  if (ready_.head != nullptr) MakeRunnableGlobally(&ready_);
  heap::EndBusy();
  world::SetSignalMask(mask_);
}

bool Abandon(Sleeper* s) {
  bool woken = s->waiter.Abandon();
  SleepQueues::Withdraw(s);
  EndHold();
  return woken;
}

bool MaySleep(const void* key) {
  return LoadAcquire(&BucketOf(key)->keys) != nullptr;  // pairs: Put
}

void PrepareSemaForForks() {
  long r = plat::Syscall(__NR_madvise, &buckets[0], sizeof buckets, MADV_WIPEONFORK);
  cleared_by_kernel = !plat::IsError(r);
}

void SemaAfterFork() {
  if (cleared_by_kernel) return;
  for (Bucket& b : buckets) {
    if (b.keys != nullptr) b.keys = nullptr;
    if (b.lock.locked()) b.lock.ResetAfterFork();
  }
}

}  // namespace undergo::sched
