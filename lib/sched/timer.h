// SPDX-License-Identifier: Apache-2.0
// Deadlines of waiting Gs: a 4-ary heap for each P.
//
// A G has one timer, in itself. The heap's array lies in pages of its own and grows by doubling.
// Sources: Go's runtime/time.go for the shape; LaMarca and Ladner for the arity.
#pragma once

#include "sched/g.h"
#include "sync/mutex.h"

namespace undergo::sched {

class TimerHeap {
 public:
  // Enters g, whose Timer::when and p are set. False when there is no memory for it.
  bool Add(G* g);
  // Takes g out if it is still in.
  void Remove(G* g);
  // Ends the waits whose time has come; these Gs are added to `ready`.
  void Run(uint64_t now, GQueue* ready);
  // The nearest deadline, 0: none. Any thread, without a lock.
  uint64_t Nearest() const { return LoadRelaxed(&nearest_); }
  uint32_t size() const { return LoadRelaxed(&size_); }

  // The Gs in it are not looked at.
  void ResetAfterFork();

 private:
  void Place(uint32_t i, G* g);
  void Up(uint32_t i);
  void Down(uint32_t i);
  void RemoveLocked(G* g);
  bool Grow();

  sync::Mutex lock_;
  uint32_t size_ = 0;      // lock_
  uint32_t capacity_ = 0;  // lock_
  uint64_t nearest_ = 0;   // atomic; written under lock_
  G** heap_ = nullptr;     // lock_; from index 0
};

}  // namespace undergo::sched
