// SPDX-License-Identifier: Apache-2.0
// Run queues of the Ps.
//
// A ring of 256 that only the owner fills and everybody may empty, by a compare-and-swap on `head`;
// thieves take half. `runnext` is one more place, for the G that the running one made runnable
// last: it runs in the same slice, so that two Gs that wake each other cannot starve the rest, and
// it is stolen last. A full ring goes to the global queue by half. Source: Go's runtime/proc.go.
#include "sched/sched.h"

namespace undergo::sched {

namespace {

// Half of the ring and g to the global queue. False when a thief made room meanwhile.
bool Overflow(P* p, G* g, uint32_t head, uint32_t tail) {
  uint32_t n = (tail - head) / 2;
  G* batch[kRingSize / 2 + 1];
  for (uint32_t i = 0; i < n; ++i) batch[i] = LoadRelaxed(&p->ring[(head + i) % kRingSize]);
  if (!CasAcqRel(&p->head, &head, head + n)) return false;  // pairs: Grab
  GQueue q;
  for (uint32_t i = 0; i < n; ++i) q.Push(batch[i]);
  q.Push(g);
  sync::MutexLock hold(sched.lock);
  sched.global.Append(&q);
  return true;
}

// Copies half of the victim's ring behind `at` in p's ring; how many.
uint32_t Grab(P* victim, P* p, uint32_t at, bool with_next) {
  for (;;) {
    uint32_t head = LoadAcquire(&victim->head);  // pairs: RunqGet
    uint32_t tail = LoadAcquire(&victim->tail);  // pairs: RunqPut
    uint32_t n = tail - head;
    n -= n / 2;
    if (n == 0) {
      G* next = LoadAcquire(&victim->runnext);  // pairs: RunqPut
      if (!with_next || next == nullptr) return 0;
      if (!CasAcqRel(&victim->runnext, &next, nullptr)) continue;  // pairs: RunqPut
      StoreRelaxed(&p->ring[at % kRingSize], next);
      return 1;
    }
    if (n > kRingSize / 2) continue;  // head and tail are from two moments
    for (uint32_t i = 0; i < n; ++i) {
      StoreRelaxed(&p->ring[(at + i) % kRingSize],
                   LoadRelaxed(&victim->ring[(head + i) % kRingSize]));
    }
    if (CasAcqRel(&victim->head, &head, head + n)) return n;  // pairs: RunqGet, Overflow
  }
}

}  // namespace

void RunqPut(P* p, G* g, bool next) {
  if (next) {
    g = __atomic_exchange_n(&p->runnext, g, __ATOMIC_ACQ_REL);  // pairs: Grab
    if (g == nullptr) return;
  }
  for (;;) {
    uint32_t head = LoadAcquire(&p->head);  // pairs: Grab
    uint32_t tail = p->tail;
    if (tail - head < kRingSize) {
      StoreRelaxed(&p->ring[tail % kRingSize], g);
      StoreRelease(&p->tail, tail + 1);  // pairs: Grab
      return;
    }
    if (Overflow(p, g, head, tail)) return;
  }
}

void RunqPutNew(P* p, G* g) {
  if (RunqEmpty(p)) return RunqPut(p, g, true);
  G* next = ExchangeAcqRel(&p->runnext, static_cast<G*>(nullptr));  // pairs: Grab
  if (next != nullptr) RunqPut(p, next, false);
  RunqPut(p, g, false);
}

G* RunqGet(P* p, bool* inherits) {
  G* next = LoadRelaxed(&p->runnext);
  // Nobody but the owner puts one in: if it is gone at the second look, there is none.
  if (next != nullptr && CasAcqRel(&p->runnext, &next, nullptr)) {  // pairs: Grab
    *inherits = true;
    return next;
  }
  *inherits = false;
  for (;;) {
    uint32_t head = LoadAcquire(&p->head);  // pairs: Grab
    if (p->tail == head) return nullptr;
    G* g = LoadRelaxed(&p->ring[head % kRingSize]);
    if (CasAcqRel(&p->head, &head, head + 1)) return g;  // pairs: Grab
  }
}

G* RunqSteal(P* p, P* victim, bool with_next) {
  uint32_t tail = p->tail;
  uint32_t n = Grab(victim, p, tail, with_next);
  if (n == 0) return nullptr;
  // The oldest one runs: threads that were made together begin in their order.
  G* first = LoadRelaxed(&p->ring[tail % kRingSize]);
  for (uint32_t i = 1; i < n; ++i) {
    StoreRelaxed(&p->ring[(tail + i - 1) % kRingSize],
                 LoadRelaxed(&p->ring[(tail + i) % kRingSize]));
  }
  if (n > 1) StoreRelease(&p->tail, tail + n - 1);  // pairs: Grab
  return first;
}

bool RingEmpty(const P* p) { return LoadRelaxed(&p->head) == LoadRelaxed(&p->tail); }

bool RunqEmpty(const P* p) { return RingEmpty(p) && LoadRelaxed(&p->runnext) == nullptr; }

uint32_t RunqSize(const P* p) {
  return LoadRelaxed(&p->tail) - LoadRelaxed(&p->head) + (LoadRelaxed(&p->runnext) != nullptr);
}

}  // namespace undergo::sched
