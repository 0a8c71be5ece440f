// SPDX-License-Identifier: Apache-2.0
// The pool of work chunks. One lock: a chunk is 510 objects, so it is taken rarely.
#include "gc/work_queue.h"

#include "plat/vm.h"

namespace undergo::gc {

namespace {
constexpr size_t kBlock = 64 * sizeof(WorkChunk);
}

WorkChunk* WorkPool::Take() {
  if (!HasWork()) return nullptr;
  sync::MutexLock hold(lock_);
  WorkChunk* c = full_;
  if (c != nullptr) StoreRelaxed(&full_, c->next);
  return c;
}

void WorkPool::Put(WorkChunk* c) {
  sync::MutexLock hold(lock_);
  c->next = full_;
  StoreRelease(&full_, c);  // pairs: HasWork
}

WorkChunk* WorkPool::NewChunk() {
  sync::MutexLock hold(lock_);
  if (empty_ == nullptr) {
    auto* block = static_cast<WorkChunk*>(plat::MapPages(kBlock));
    if (block == nullptr) {
      Fail("no memory for the mark queue");
      return nullptr;
    }
    for (size_t i = 0; i < kBlock / sizeof(WorkChunk); ++i) {
      block[i].next = empty_;
      empty_ = &block[i];
    }
  }
  WorkChunk* c = empty_;
  empty_ = c->next;
  c->count = 0;
  return c;
}

void WorkPool::Recycle(WorkChunk* c) {
  sync::MutexLock hold(lock_);
  c->next = empty_;
  empty_ = c;
}

void WorkPool::Reset() {
  while (WorkChunk* c = Take()) Recycle(c);
  StoreRelaxed(&failed_, false);
}

void WorkPool::ResetAfterForkInChild() {
  lock_.ResetAfterFork();
  Reset();
}

}  // namespace undergo::gc
