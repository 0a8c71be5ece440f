// SPDX-License-Identifier: Apache-2.0
// Futexes that programs and C++ runtimes use by syscall().
//
// A G waits in the queue of the word's address (sched/sema.h), under the kernel's rules: the value
// is compared with the queue locked, a wake after a change of the value takes the same lock.
// Threads without a G wait in the kernel, so that a wake that finds too few sleepers here asks the
// kernel for the rest. Words without the PRIVATE flag may be other processes' too: unless they lie
// in the heap, their waiters block in the kernel.
#include "posix/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>

#include "heap/arena.h"
#include "posix/deadline.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/sema.h"

namespace undergo::posix {

namespace {

using sched::Sleeper;
using sched::Visit;
using sched::Wake;

constexpr Addr kLowest = 64 * kKiB;  // nothing is mapped below

struct Call {
  uint32_t* word;
  int op;  // with its flags
  uint32_t value;
  long second;  // a time or a count
  uint32_t* other;
  uint32_t third;

  int command() const { return op & FUTEX_CMD_MASK; }
  const struct timespec* time() const { return reinterpret_cast<const struct timespec*>(second); }
};

bool CanSleepHere(const Call& c) {
  Addr a = reinterpret_cast<Addr>(c.word);
  if (sched::Current() == nullptr || a < kLowest || a % sizeof(uint32_t) != 0) return false;
  return (c.op & FUTEX_PRIVATE_FLAG) != 0 || heap::InArena(c.word);
}

bool Sleep(const Call& c, uint32_t bits, long* result) {
  uint64_t deadline = sched::kNever;
  if (const struct timespec* t = c.time(); t != nullptr) {
    if (!IsValid(t) || t->tv_sec < 0) return false;
    bool real_time = (c.op & FUTEX_CLOCK_REALTIME) != 0;
    if (c.command() == FUTEX_WAIT) {
      if (real_time) return false;
      deadline = plat::NowNs() + ToNs(t);
    } else if (DeadlineOf(real_time ? CLOCK_REALTIME : CLOCK_MONOTONIC, t, &deadline) != 0) {
      return false;
    }
  }
  for (;;) {
    Sleeper s(sched::WaitReason::kFutex, c.word);
    s.detail = bits;
    Visit v(c.word);
    if (LoadAcquire(c.word) != c.value) return *result = -EAGAIN, true;  // pairs: the program
    Wake why = v.Wait(&s, deadline, true);
    if (why == Wake::kReady) return *result = 0, true;
    if (why == Wake::kTimeout) return *result = -ETIMEDOUT, true;
    if (AttendToInterrupt(c.time() != nullptr ? Restart::kNever : Restart::kByFlag)) {
      return *result = -EINTR, true;
    }
  }
}

// As the kernel: at least one.
uint32_t Count(long n) { return n <= 0 ? 1 : static_cast<uint32_t>(n); }

long WakeHere(const uint32_t* word, uint32_t n, uint32_t bits) {
  Visit v(word);
  return v.WakeMany(n, bits);
}

// The rest of a wake is the kernel's.
long WakeAt(const Call& c, uint32_t* word, long count, uint32_t bits) {
  uint32_t n = Count(count);
  long woken = WakeHere(word, n, bits);
  if (woken >= static_cast<long>(n)) return woken;
  int op = FUTEX_WAKE_BITSET | (c.op & FUTEX_PRIVATE_FLAG);
  long more = plat::Syscall(__NR_futex, word, op, static_cast<int>(n - woken), nullptr, nullptr,
                            static_cast<int>(bits));
  if (more >= 0) return woken + more;
  return woken != 0 ? woken : more;
}

long Requeue(const Call& c) {
  auto wake = static_cast<int>(c.value), move = static_cast<int>(c.second);
  if (wake < 0 || move < 0) return -EINVAL;
  long woken, moved;
  {
    Visit v(c.word, c.other);
    bool compares = c.command() == FUTEX_CMP_REQUEUE;
    if (compares && LoadAcquire(c.word) != c.third) return -EAGAIN;  // pairs: the program
    woken = v.WakeMany(static_cast<uint32_t>(wake));
    moved = v.Requeue(static_cast<uint32_t>(move));
  }
  if (woken == wake && moved == move) return woken + moved;
  long more = plat::Syscall(__NR_futex, c.word, c.op, wake - woken, move - moved, c.other, c.third);
  return woken + moved + (more > 0 ? more : 0);
}

// The operation on the other word, and whether its old value compares as wanted.
bool Operate(uint32_t* word, uint32_t code, bool* compares) {
  uint32_t op = code >> 28, cmp = code >> 24 & 15;
  // Two fields of 12 bits with sign.
  auto operand = static_cast<uint32_t>(static_cast<int32_t>(code << 8) >> 20);
  auto against = static_cast<int32_t>(code << 20) >> 20;
  if ((op & FUTEX_OP_OPARG_SHIFT) != 0) operand = 1u << (operand & 31);
  op &= ~static_cast<uint32_t>(FUTEX_OP_OPARG_SHIFT);
  if (op > FUTEX_OP_XOR || cmp > FUTEX_OP_CMP_GE) return false;
  uint32_t old = LoadRelaxed(word), wanted;
  do {
    switch (op) {
      case FUTEX_OP_SET: wanted = operand; break;
      case FUTEX_OP_ADD: wanted = old + operand; break;
      case FUTEX_OP_OR: wanted = old | operand; break;
      case FUTEX_OP_ANDN: wanted = old & ~operand; break;
      default: wanted = old ^ operand; break;
    }
  } while (!CasAcqRel(word, &old, wanted));  // pairs: the program
  auto before = static_cast<int32_t>(old);
  switch (cmp) {
    case FUTEX_OP_CMP_EQ: *compares = before == against; break;
    case FUTEX_OP_CMP_NE: *compares = before != against; break;
    case FUTEX_OP_CMP_LT: *compares = before < against; break;
    case FUTEX_OP_CMP_LE: *compares = before <= against; break;
    case FUTEX_OP_CMP_GT: *compares = before > against; break;
    default: *compares = before >= against; break;
  }
  return true;
}

bool WakeAndOperate(const Call& c, long* result) {
  bool compares;
  if (!Operate(c.other, c.third, &compares)) return false;
  *result = WakeAt(c, c.word, static_cast<int>(c.value), FUTEX_BITSET_MATCH_ANY);
  if (*result >= 0 && compares) {
    *result += WakeAt(c, c.other, static_cast<int>(c.second), FUTEX_BITSET_MATCH_ANY);
  }
  return true;
}

bool IsWord(const uint32_t* word) {
  Addr a = reinterpret_cast<Addr>(word);
  return a >= kLowest && a % sizeof(uint32_t) == 0 && a < (Addr{1} << 47);
}

}  // namespace

bool Futex(const long args[6], long* result) {
  Call c = {reinterpret_cast<uint32_t*>(args[0]), static_cast<int>(args[1]),
            static_cast<uint32_t>(args[2]),       args[3],
            reinterpret_cast<uint32_t*>(args[4]), static_cast<uint32_t>(args[5])};
  switch (c.command()) {
    case FUTEX_WAIT: return CanSleepHere(c) && Sleep(c, FUTEX_BITSET_MATCH_ANY, result);
    case FUTEX_WAIT_BITSET: return c.third != 0 && CanSleepHere(c) && Sleep(c, c.third, result);
    case FUTEX_WAKE:
      if (!IsWord(c.word)) return false;
      *result = WakeAt(c, c.word, static_cast<int>(c.value), FUTEX_BITSET_MATCH_ANY);
      return true;
    case FUTEX_WAKE_BITSET:
      if (!IsWord(c.word) || c.third == 0) return false;
      *result = WakeAt(c, c.word, static_cast<int>(c.value), c.third);
      return true;
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
      if (!IsWord(c.word) || !IsWord(c.other)) return false;
      *result = Requeue(c);
      return true;
    case FUTEX_WAKE_OP: return IsWord(c.word) && IsWord(c.other) && WakeAndOperate(c, result);
    // The kernel wants to know the owner.
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_TRYLOCK_PI:
    case FUTEX_UNLOCK_PI:
    case FUTEX_WAIT_REQUEUE_PI: sched::Pin(); return false;
    default: return false;
  }
}

}  // namespace undergo::posix
