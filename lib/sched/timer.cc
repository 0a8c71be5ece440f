// SPDX-License-Identifier: Apache-2.0
// 4-ary heap of deadlines.
#include "sched/timer.h"

#include "base/assert.h"
#include "plat/vm.h"

namespace undergo::sched {

namespace {
constexpr uint32_t kArity = 4;
constexpr uint32_t kFirstCapacity = kOsPageSize / sizeof(G*);
}  // namespace

bool TimerHeap::Grow() {
  uint32_t capacity = capacity_ == 0 ? kFirstCapacity : capacity_ * 2;
  auto* fresh = static_cast<G**>(plat::MapPages(capacity * sizeof(G*)));
  if (fresh == nullptr) return false;
  if (heap_ != nullptr) {
    __builtin_memcpy(fresh, heap_, size_ * sizeof(G*));
    plat::Unmap(reinterpret_cast<Addr>(heap_), capacity_ * sizeof(G*));
  }
  heap_ = fresh;
  capacity_ = capacity;
  return true;
}

void TimerHeap::Place(uint32_t i, G* g) {
  heap_[i] = g;
  g->timer.index = i + 1;
}

void TimerHeap::Up(uint32_t i) {
  G* g = heap_[i];
  while (i > 0) {
    uint32_t parent = (i - 1) / kArity;
    if (heap_[parent]->timer.when <= g->timer.when) break;
    Place(i, heap_[parent]);
    i = parent;
  }
  Place(i, g);
}

void TimerHeap::Down(uint32_t i) {
  G* g = heap_[i];
  for (;;) {
    uint32_t first = i * kArity + 1;
    if (first >= size_) break;
    uint32_t least = first;
    for (uint32_t c = first + 1; c < first + kArity && c < size_; ++c) {
      if (heap_[c]->timer.when < heap_[least]->timer.when) least = c;
    }
    if (heap_[least]->timer.when >= g->timer.when) break;
    Place(i, heap_[least]);
    i = least;
  }
  Place(i, g);
}

bool TimerHeap::Add(G* g) {
  sync::MutexLock hold(lock_);
  if (size_ == capacity_ && !Grow()) return false;
  heap_[size_] = g;
  StoreRelaxed(&size_, size_ + 1);
  Up(size_ - 1);
  StoreRelaxed(&nearest_, heap_[0]->timer.when);
  return true;
}

void TimerHeap::RemoveLocked(G* g) {
  uint32_t i = g->timer.index - 1;
  UNDERGO_ASSERT(heap_[i] == g);
  g->timer.index = 0;
  StoreRelaxed(&size_, size_ - 1);
  if (i != size_) {
    G* last = heap_[size_];
    Place(i, last);
    Up(i);
    Down(last->timer.index - 1);
  }
  StoreRelaxed(&nearest_, size_ == 0 ? uint64_t{0} : heap_[0]->timer.when);
}

void TimerHeap::Remove(G* g) {
  sync::MutexLock hold(lock_);
  if (g->timer.index != 0) RemoveLocked(g);
}

void TimerHeap::Run(uint64_t now, GQueue* ready) {
  sync::MutexLock hold(lock_);
  while (size_ != 0 && heap_[0]->timer.when <= now) {
    G* g = heap_[0];
    RemoveLocked(g);
    if (ClaimWake(g, Wake::kTimeout)) ready->Push(g);
  }
}

void TimerHeap::ResetAfterFork() {
  size_ = 0;
  nearest_ = 0;
  lock_.ResetAfterFork();
}

}  // namespace undergo::sched
