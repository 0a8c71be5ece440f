// SPDX-License-Identifier: Apache-2.0
// All mcaches, thread start and end, fork.
#include "heap/registry.h"

#include "base/assert.h"
#include "heap/careful.h"
#include "heap/mcentral.h"
#include "heap/mheap.h"
#include "plat/vm.h"

namespace undergo::heap {

constinit AttachHook on_thread_attached = nullptr;

namespace {

constinit sync::Mutex registry_lock;
constinit MCache* all_mcaches = nullptr;  // registry_lock for writers; readers follow acquire loads
constinit MCache* idle_mcaches = nullptr;  // registry_lock
constinit MCache first_mcache = {};        // the first thread needs no mapping of its own
constinit bool first_used = false;         // registry_lock
constinit Addr pool = 0;                   // registry_lock; room for further mcaches
constinit size_t pool_left = 0;            // registry_lock; bytes

constexpr size_t kPoolBytes = 16 * AlignUp(sizeof(MCache), 64);

MCache* NewMCacheLocked() {
  MCache* mc;
  if (!first_used) {
    first_used = true;
    mc = &first_mcache;
  } else {
    if (pool_left < sizeof(MCache)) {
      pool = reinterpret_cast<Addr>(plat::MapPages(AlignUp(kPoolBytes, kOsPageSize)));
      if (pool == 0) return nullptr;
      pool_left = AlignUp(kPoolBytes, kOsPageSize);
    }
    mc = reinterpret_cast<MCache*>(pool);
    pool += sizeof(MCache);
    pool_left -= sizeof(MCache);
  }
  mc->all_next = all_mcaches;
  StoreRelease(&all_mcaches, mc);  // pairs: FirstMCache
  return mc;
}

void LeaveFork() {
  CompilerFence();
  thread_words.in_mheap--;
  EndBusy();
}

}  // namespace

MCache* FirstMCache() { return LoadAcquire(&all_mcaches); }  // pairs: NewMCacheLocked

MCache* AttachThread() {
  MCache* mc;
  {
    sync::MutexLock hold(registry_lock);
    mc = idle_mcaches;
    if (mc != nullptr) {
      idle_mcaches = mc->idle_next;
    } else {
      mc = NewMCacheLocked();
      if (mc == nullptr) return nullptr;
    }
  }
  {
    sync::MutexLock hold(mc->lock);
    mc->idle = false;
  }
  thread_words.mcache = mc;
  if (on_thread_attached != nullptr) on_thread_attached();
  return mc;
}

void DetachThread() {
  BusyScope busy;
  MCache* mc = thread_words.mcache;
  thread_words.exited = 1;
  if (mc == &empty_mcache) return;
  CompilerFence();
  thread_words.mcache = &empty_mcache;
  {
    sync::MutexLock hold(mc->lock);
    FlushLocked(mc);
    mc->idle = true;
  }
  sync::MutexLock hold(registry_lock);
  mc->idle_next = idle_mcaches;
  idle_mcaches = mc;
}

size_t ReclaimFromOthers() {
  size_t slices = 0;
  MCache* self = thread_words.mcache;
  for (MCache* mc = FirstMCache(); mc != nullptr; mc = mc->all_next) {
    if (mc == self || LoadRelaxed(&mc->ready) == nullptr || !mc->lock.TryLock()) continue;
    slices += DrainReadyLocked(mc, true);
    mc->lock.Unlock();
  }
  return slices;
}

void ReclaimAll() {
  MCache* mc = thread_words.mcache;
  if (mc != &empty_mcache) {
    sync::MutexLock hold(mc->lock);
    FlushLocked(mc);
  }
  ReclaimFromOthers();
  for (MCentral& c : mcentrals) c.ReleaseEmpty();
}

Span* AllocSpanOrReclaim(uint32_t slices, uint32_t align_slices, SpanUse use, bool* zeroed) {
  Span* s = mheap.AllocSpan(slices, align_slices, use, Growth::kNo, zeroed);
  if (s == nullptr && ReclaimFromOthers() != 0) {
    s = mheap.AllocSpan(slices, align_slices, use, Growth::kNo, zeroed);
  }
  return s != nullptr ? s : mheap.AllocSpan(slices, align_slices, use, Growth::kYes, zeroed);
}

bool ReclaimFromIdle() {
  if (LoadRelaxed(&idle_mcaches) == nullptr || !registry_lock.TryLock()) return false;
  bool found = false;
  for (MCache* mc = idle_mcaches; mc != nullptr; mc = mc->idle_next) {
    if (LoadRelaxed(&mc->ready) == nullptr || !mc->lock.TryLock()) continue;
    DrainReadyLocked(mc, true);
    found = true;
    mc->lock.Unlock();
  }
  registry_lock.Unlock();
  return found;
}

void LockAllForFork() {
  // A signal handler that allocates now must wait for none of these.
  thread_words.busy++;
  thread_words.in_mheap++;
  CompilerFence();
  registry_lock.Lock();
  for (MCache* mc = all_mcaches; mc != nullptr; mc = mc->all_next) mc->lock.Lock();
  for (MCentral& c : mcentrals) c.lock.Lock();
  mheap.lock().Lock();
}

void UnlockAllInParent() {
  mheap.lock().Unlock();
  for (MCentral& c : mcentrals) c.lock.Unlock();
  for (MCache* mc = all_mcaches; mc != nullptr; mc = mc->all_next) mc->lock.Unlock();
  registry_lock.Unlock();
  LeaveFork();
}

void ResetAllInChild() {
  ResetDirectReadsInChild();
  mheap.ResetAfterForkInChild();
  for (MCentral& c : mcentrals) c.lock.ResetAfterFork();
  // The other threads are gone and their lists are whole: the child's new threads go on with them.
  idle_mcaches = nullptr;
  for (MCache* mc = all_mcaches; mc != nullptr; mc = mc->all_next) {
    mc->lock.ResetAfterFork();
    if (mc == thread_words.mcache) continue;
    mc->idle = true;
    mc->idle_next = idle_mcaches;
    idle_mcaches = mc;
  }
  registry_lock.ResetAfterFork();
  LeaveFork();
}

}  // namespace undergo::heap
