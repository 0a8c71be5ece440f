// SPDX-License-Identifier: Apache-2.0
// MCentral: spans between owners.
//
// A span comes here when its thread ends, or when an idle mcache is reclaimed, and leaves with the
// next thread that needs its class. While it is here every free is a remote free; the lock holder
// owns the free bits.
#include "heap/mcentral.h"

#include "base/assert.h"
#include "heap/mcache.h"
#include "heap/mheap.h"
#include "heap/sweep.h"

namespace undergo::heap {

constinit MCentral mcentrals[kNumClasses];

namespace {

bool AllFree(Span* s) {
  HarvestRemote(s);
  return CountFree(s) == s->slots;
}

void Release(Span* s) {
  GcForgetSpan(s);
  StoreRelaxed(&s->state, SpanState::kFree);
  mheap.FreeSpan(s);
}

}  // namespace

void MCentral::DrainLocked() {
  Span* s = TakeReady(&ready);
  while (s != nullptr) {
    Span* next = s->ready_next;
    StoreRelease(&s->pending, 0u);            // pairs: MarkReady
    if (LoadAcquire(&s->owner) != nullptr) {  // pairs: Take
      MarkReady(s);
    } else if (s->state == SpanState::kCentral && &mcentrals[s->cls] == this && AllFree(s) &&
               LoadAcquire(&s->pending) == 0) {  // pairs: MarkReady
      Unlink(&partial_, s);
      Release(s);
    }
    s = next;
  }
}

Span* MCentral::Take(MCache* mc) {
  if (LoadRelaxed(&partial_) == nullptr) return nullptr;
  sync::MutexLock hold(lock);
  DrainLocked();
  Span* s = partial_;
  if (s == nullptr) return nullptr;
  Unlink(&partial_, s);
  StoreRelaxed(&s->state, SpanState::kFull);
  // A full barrier: either the harvest sees a remote free, or its MarkReady sees the new owner.
  ExchangeAcqRel(&s->owner, mc);  // pairs: MarkReady, DrainReadyLocked
  HarvestRemote(s);
  return s;
}

void MCentral::Give(Span* s) {
  sync::MutexLock hold(lock);
  StoreRelaxed(&s->state, SpanState::kCentral);
  ExchangeAcqRel(&s->owner, static_cast<MCache*>(nullptr));  // pairs: MarkReady
  if (AllFree(s) && LoadAcquire(&s->pending) == 0) {         // pairs: MarkReady
    Release(s);
    return;
  }
  PushBack(&partial_, s);
}

void MCentral::ReleaseEmpty() {
  sync::MutexLock hold(lock);
  DrainLocked();
  Span* s = partial_;
  if (s == nullptr) return;
  Span* last = s->prev;
  for (bool done = false; !done;) {
    Span* next = s->next;
    done = s == last;
    if (AllFree(s) && LoadAcquire(&s->pending) == 0) {  // pairs: MarkReady
      Unlink(&partial_, s);
      Release(s);
    }
    s = next;
  }
}

}  // namespace undergo::heap
