// SPDX-License-Identifier: Apache-2.0
// Objects that are marked and wait to be scanned.
//
// An item is the address of an object's first byte, or, with bit 0 set, the address from which a
// large object is still to be scanned, or, with bit 1 set, a slice whose span waits (span_queue.h).
// Each marker has a local stack and a queue of spans; what is too much for it or wanted by others
// goes in chunks to the pool, where every marker takes from.
#pragma once

#include "base/types.h"
#include "sync/mutex.h"

namespace undergo::gc {

struct WorkChunk {
  static constexpr uint32_t kItems = 510;
  WorkChunk* next;  // pool's lock
  uint64_t count;
  uint64_t items[kItems];
};
static_assert(sizeof(WorkChunk) == 4096);

struct WorkBlock;

class WorkPool {
 public:
  // A chunk with work, or null.
  WorkChunk* Take();
  void Put(WorkChunk* c);
  // An empty chunk; null when there is no memory, and then failed() is true until Reset.
  WorkChunk* NewChunk();
  void Recycle(WorkChunk* c);
  bool HasWork() const { return LoadAcquire(&full_) != nullptr; }  // pairs: Put
  // Asks those who have work to share it and waits for that, some microseconds. Any thread.
  bool AwaitWork();
  // Of those who are not waited for in other ways: between Begin and End, whose caller has handed
  // all of its work back, the mark is not complete.
  void BeginScan() { FetchAddAcqRel(&scanners_, 1u); }  // pairs: IsDone
  void EndScan() { FetchAddAcqRel(&scanners_, ~0u); }   // pairs: IsDone
  bool IsDone() const { return !HasScanners() && !HasWork(); }
  bool HasScanners() const { return LoadAcquire(&scanners_) != 0; }  // pairs: EndScan
  // Somebody waits in AwaitWork.
  bool IsWanted() const { return LoadRelaxed(&hungry_) != 0; }
  bool failed() const { return LoadRelaxed(&failed_); }
  // The mark cannot become complete: failed() until Reset.
  void Fail(const char* why) {
    StoreRelaxed(&reason_, why);
    StoreRelaxed(&failed_, true);
  }
  const char* reason() const { return LoadRelaxed(&reason_); }
  // Drops all work: a cycle was abandoned, or a forked child begins anew.
  void Reset();
  // Drops all work and gives the memory back, but for one block. Nobody has a chunk of it.
  void Release();
  void ResetAfterForkInChild();

 private:
  bool AddBlockLocked();

  sync::Mutex lock_;
  WorkChunk* full_ = nullptr;    // lock_ for writers
  WorkChunk* empty_ = nullptr;   // lock_
  WorkBlock* blocks_ = nullptr;  // lock_; only the first has unused chunks
  uint32_t hungry_ = 0;          // atomic; threads in AwaitWork
  uint32_t scanners_ = 0;        // atomic; assists that scan
  bool failed_ = false;
  const char* reason_ = "";  // constant string
};

}  // namespace undergo::gc
