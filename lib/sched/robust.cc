// SPDX-License-Identifier: Apache-2.0
// Lists of robust mutexes, laid out as the kernel wants them (get_robust_list(2)): each entry is
// the address of the `next` field in a mutex, bit 0 says that the mutex is a priority-inheriting
// one; glibc keeps a `prev` field before it.
#include "sched/robust.h"

#include <linux/futex.h>

#include "plat/syscall.h"
#include "sched/handoff.h"
#include "sched/sema.h"
#include "sched/tcb.h"

namespace undergo::sched {

namespace {

constexpr Addr kInheriting = 1;
constexpr int kMostEntries = 1 << 20;  // against rings; the kernel gives up at 2048

Addr HeadOf(Addr block) { return reinterpret_cast<Addr>(RobustHeadField(block)); }
Addr OwnHead() { return HeadOf(reinterpret_cast<Addr>(__builtin_thread_pointer())); }

Addr* Next(Addr entry) { return reinterpret_cast<Addr*>(entry & ~kInheriting); }
Addr* Prev(Addr entry) { return Next(entry) - 1; }

Addr EntryOf(pthread_mutex_t* m) { return reinterpret_cast<Addr>(&m->__data.__list.__next); }
uint32_t* WordOf(Addr entry) {
  constexpr size_t kOffset = __builtin_offsetof(pthread_mutex_t, __data.__list.__next);
  return reinterpret_cast<uint32_t*>((entry & ~kInheriting) - kOffset);
}

void MarkDead(uint32_t* word, uint32_t tid, uint32_t kernel_tid) {
  uint32_t w = LoadRelaxed(word);
  do {
    uint32_t owner = w & FUTEX_TID_MASK;
    if (owner != tid && owner != kernel_tid) return;
  } while (!CasAcqRel(word, &w, (w & FUTEX_WAITERS) | FUTEX_OWNER_DIED));  // pairs: who locks it
  if ((w & FUTEX_WAITERS) == 0) return;
  bool any;
  {
    Visit v(word);
    any = v.WakeOne();
  }
  if (!any) plat::Syscall(__NR_futex, word, FUTEX_WAKE, 1);
}

}  // namespace

void LinkRobust(pthread_mutex_t* m, bool inheriting) {
  Addr head = OwnHead();
  Addr entry = EntryOf(m);
  Addr first = *Next(head);
  *Prev(first) = entry;
  *Next(entry) = first;
  *Prev(entry) = head;
  CompilerFence();
  *Next(head) = entry | (inheriting ? kInheriting : 0);
}

void UnlinkRobust(pthread_mutex_t* m) {
  Addr entry = EntryOf(m);
  *Prev(*Next(entry)) = *Prev(entry);
  *Next(*Prev(entry)) = *Next(entry);
  CompilerFence();
  *Next(entry) = *Prev(entry) = 0;
}

void ReleaseRobust(G* g) {
  Addr head = HeadOf(g->fs);
  Addr entry = *Next(head);
  if (UNDERGO_LIKELY(entry == head)) return;
  auto kernel_tid = static_cast<uint32_t>(plat::Syscall(__NR_gettid));
  for (int i = 0; entry != head && i < kMostEntries; ++i) {
    Addr next = *Next(entry);
    MarkDead(WordOf(entry), static_cast<uint32_t>(g->tid), kernel_tid);
    entry = next;
  }
  *Next(head) = *Prev(head) = head;
}

void PinForRobust() {
  if (Current() == nullptr) return;
  Pin();
  constexpr size_t kHeadSize = 24;
  plat::Syscall(__NR_set_robust_list, OwnHead(), kHeadSize);
}

}  // namespace undergo::sched
