// SPDX-License-Identifier: Apache-2.0
// The slots of descriptor numbers, and hints about descriptors: their kind, their other end,
// whether a read would find something. A hint that is wrong costs a system call or a later wake-up,
// never a wait for ever.
#include "sched/fd_slots.h"

#include "plat/vm.h"
#include "sched/confine.h"

namespace undergo::sched {

namespace {

constinit FdSlot* chunks[kFdChunks] = {};  // atomic; made when needed, never unmapped

constinit uint32_t shared = 1;  // atomic; counts events after which others may have what exists

}  // namespace

FdSlot* FindFdSlots(uint32_t chunk) { return LoadAcquire(&chunks[chunk]); }  // pairs: MakeFdSlot

FdSlot* MakeFdSlot(int fd) {
  auto n = static_cast<uint32_t>(fd);
  if (n >= kFdChunk * kFdChunks) return nullptr;
  FdSlot* chunk = LoadAcquire(&chunks[n / kFdChunk]);  // pairs: below
  if (chunk == nullptr) {
    auto* fresh = static_cast<FdSlot*>(plat::MapPages(kFdChunk * sizeof(FdSlot)));
    if (fresh == nullptr) return nullptr;
    if (CasAcqRel(&chunks[n / kFdChunk], &chunk, fresh)) {  // pairs: FindFdSlots
      chunk = fresh;
    } else {
      plat::Unmap(reinterpret_cast<Addr>(fresh), kFdChunk * sizeof(FdSlot));
    }
  }
  return &chunk[n % kFdChunk];
}

void ForgetFdSlots() {
  for (FdSlot* chunk : chunks) {
    if (chunk != nullptr) __builtin_memset(static_cast<void*>(chunk), 0, kFdChunk * sizeof(FdSlot));
  }
}

uint32_t NetpollActivity(int fd) {
  FdSlot* s = FindFdSlot(fd);
  return s != nullptr ? __atomic_load_n(&s->activity, __ATOMIC_SEQ_CST)
                      : 0;  // pairs: NetpollHandOver
}

void NetpollSetDry(int fd, uint32_t activity) {
  if (FdSlot* s = FindFdSlot(fd)) StoreRelaxed(&s->dry, activity + 1);
}

void NetpollSetWet(int fd) {
  FdSlot* s = FindFdSlot(fd);
  if (s != nullptr && LoadRelaxed(&s->dry) != 0) StoreRelaxed(&s->dry, 0u);
}

void NetpollFoundNothing(int fd, uint32_t activity) {
  FdSlot* s = FindFdSlot(fd);
  if (s != nullptr && LoadRelaxed(&s->activity) == activity) StoreRelaxed(&s->balance, 0u);
}

bool NetpollIsDry(int fd, uint32_t activity) {
  constexpr uint32_t kTryEvery = 16;  // or else a busy descriptor would never be tried again
  FdSlot* s = FindFdSlot(fd);
  if (s == nullptr) return false;
  // Is registered later: its bytes must have been counted. The sum of an eventfd is no such count.
  if (s->handed) {
    bool pipe = LoadRelaxed(&s->kind) == FdKind::kNowait && LoadRelaxed(&s->peer) - 1 != fd;
    return pipe && LoadRelaxed(&s->balance) == 0;
  }
  // The poller looks at once, should the read have left something.
  if (!s->stream || LoadRelaxed(&s->dry) != activity + 1 || activity + 1 == 0) return false;
  uint32_t reads = LoadRelaxed(&s->reads) + 1;
  StoreRelaxed(&s->reads, reads);
  return reads % kTryEvery != 0;
}

FdKind NetpollKind(int fd) {
  FdSlot* s = FindFdSlot(fd);
  return s != nullptr ? LoadRelaxed(&s->kind) : FdKind::kUnknown;
}

void NetpollSetKind(int fd, FdKind kind) {
  if (FdSlot* s = MakeFdSlot(fd)) StoreRelaxed(&s->kind, kind);
}

void NetpollSetOwn(int fd, bool stream) {
  FdSlot* s = MakeFdSlot(fd);
  if (s == nullptr) return;
  s->stream = stream;
  StoreRelaxed(&s->own, LoadRelaxed(&shared));
}

void NetpollDisown(int fd) {
  if (FdSlot* s = FindFdSlot(fd)) StoreRelaxed(&s->own, 0u);
}

bool NetpollIsOwn(int fd) {
  FdSlot* s = FindFdSlot(fd);
  return s != nullptr && LoadRelaxed(&s->own) == LoadAcquire(&shared) &&  // pairs: NetpollShare
         !IsConfined();
}

void NetpollShare() { FetchAddAcqRel(&shared, 1u); }  // pairs: NetpollIsOwn

FlagsLock::FlagsLock(int fd) : lock_(nullptr) {
  EnterSection();
  FdSlot* s = FindFdSlot(fd);
  if (s == nullptr) return;
  lock_ = &s->lock;
  lock_->Lock();
}

FlagsLock::~FlagsLock() {
  if (lock_ != nullptr) lock_->Unlock();
  LeaveSection();
}

void NetpollPair(int a, int b) {
  FdSlot* x = MakeFdSlot(a);
  FdSlot* y = MakeFdSlot(b);
  if (x == nullptr || y == nullptr) return;
  StoreRelaxed(&x->peer, b + 1);
  StoreRelaxed(&y->peer, a + 1);
}

void NetpollForget(int fd) {
  FdSlot* s = FindFdSlot(fd);
  if (s == nullptr) return;
  StoreRelaxed(&s->kind, FdKind::kUnknown);
  StoreRelaxed(&s->own, 0u);
  StoreRelaxed(&s->dry, 0u);
  StoreRelaxed(&s->balance, 0u);
  StoreRelaxed(&s->handed, false);
  StoreRelaxed(&s->peer, 0);
}

}  // namespace undergo::sched
