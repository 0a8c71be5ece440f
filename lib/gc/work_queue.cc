// SPDX-License-Identifier: Apache-2.0
// The pool of work chunks. One lock: a chunk is 510 objects, so it is taken rarely.
#include "gc/work_queue.h"

#include "plat/vm.h"

namespace undergo::gc {

// Chunks are mapped together. They have no memory before they are used.
struct WorkBlock {
  static constexpr size_t kChunks = 63;
  WorkBlock* next;  // pool's lock
  size_t used;      // chunks; pool's lock
  alignas(sizeof(WorkChunk)) WorkChunk chunks[kChunks];
};

namespace {
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
  WorkChunk* c = empty_;
  if (c != nullptr) {
    empty_ = c->next;
  } else {
    if ((blocks_ == nullptr || blocks_->used == WorkBlock::kChunks) && !AddBlockLocked())
      return nullptr;
    c = &blocks_->chunks[blocks_->used++];
  }
  c->count = 0;
  return c;
}

bool WorkPool::AddBlockLocked() {
  auto* block = static_cast<WorkBlock*>(plat::MapPages(sizeof(WorkBlock)));
  if (block == nullptr) {
    Fail("no memory for the mark queue");
    return false;
  }
  block->next = blocks_;
  blocks_ = block;
  return true;
}

void WorkPool::Recycle(WorkChunk* c) {
  sync::MutexLock hold(lock_);
  c->next = empty_;
  empty_ = c;
}

void WorkPool::Release() {
  sync::MutexLock hold(lock_);
  full_ = empty_ = nullptr;
  while (blocks_ != nullptr && blocks_->next != nullptr) {
    WorkBlock* block = blocks_;
    blocks_ = block->next;
    plat::Unmap(reinterpret_cast<Addr>(block), sizeof(WorkBlock));
  }
  if (blocks_ != nullptr) blocks_->used = 0;
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
