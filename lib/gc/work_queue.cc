// SPDX-License-Identifier: Apache-2.0
// The pool of work chunks. One lock: a chunk is 510 objects, so it is taken rarely.
#include "gc/work_queue.h"

#include "plat/vm.h"

namespace undergo::gc {

// Chunks are mapped together.
struct WorkBlock {
  static constexpr size_t kChunks = 63;
  WorkBlock* next;  // pool's lock
  alignas(sizeof(WorkChunk)) WorkChunk chunks[kChunks];
};

namespace {
constexpr size_t kKeptBlocks = 4;
constexpr uint32_t kSpins = 400;  // some objects' time
}  // namespace

WorkChunk* WorkPool::Take() {
  if (!HasWork()) return nullptr;
  sync::MutexLock hold(lock_);
  WorkChunk* c = full_;
  if (c != nullptr) StoreRelaxed(&full_, c->next);
  return c;
}

bool WorkPool::AwaitWork() {
  FetchAddRelaxed(&hungry_, 1u);
  for (uint32_t i = 0; i < kSpins && !HasWork(); ++i) CpuRelax();
  FetchAddRelaxed(&hungry_, ~0u);
  return HasWork();
}

void WorkPool::Put(WorkChunk* c) {
  sync::MutexLock hold(lock_);
  c->next = full_;
  StoreRelease(&full_, c);  // pairs: HasWork
}

WorkChunk* WorkPool::NewChunk() {
  sync::MutexLock hold(lock_);
  if (empty_ == nullptr) {
    auto* block = static_cast<WorkBlock*>(plat::MapPages(sizeof(WorkBlock)));
    if (block == nullptr) {
      Fail("no memory for the mark queue");
      return nullptr;
    }
    block->next = blocks_;
    blocks_ = block;
    AddChunks(block);
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

void WorkPool::AddChunks(WorkBlock* block) {
  for (WorkChunk& c : block->chunks) {
    c.next = empty_;
    empty_ = &c;
  }
}

void WorkPool::Release() {
  sync::MutexLock hold(lock_);
  full_ = empty_ = nullptr;
  WorkBlock* block = blocks_;
  blocks_ = nullptr;
  for (size_t n = 0; block != nullptr; ++n) {
    WorkBlock* next = block->next;
    if (n < kKeptBlocks) {
      block->next = blocks_;
      blocks_ = block;
      AddChunks(block);
    } else {
      plat::Unmap(reinterpret_cast<Addr>(block), sizeof(WorkBlock));
    }
    block = next;
  }
}

void WorkPool::Reset() {
  while (WorkChunk* c = Take()) Recycle(c);
  StoreRelaxed(&failed_, false);
}

void WorkPool::ResetAfterForkInChild() {
  lock_.ResetAfterFork();
  hungry_ = scanners_ = 0;
  Reset();
}

}  // namespace undergo::gc
