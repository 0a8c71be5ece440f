// SPDX-License-Identifier: Apache-2.0
// Helpers of the coordinator: threads of ours that run one function at the same time as it does.
// They exist only while cycles do.
#pragma once

#include "base/atomic.h"
#include "base/types.h"

namespace undergo::gc {

class Gang {
 public:
  static constexpr uint32_t kMax = 8;

  // At least `helpers` threads if they can be had. For the coordinator, as all that follows.
  void Start(uint32_t helpers);
  // They end.
  void Stop();
  // job(context, i) on the caller with i = 0, and at the same time on each helper, with i = 1..,
  // that wakes up before the caller is done. Returns when all are out: what is to be done must be
  // divided as it is taken.
  void Run(void (*job)(void* context, uint32_t i), void* context);
  // From now on the kernel chooses the helpers' CPUs. Any thread.
  void LeavePlacement() { StoreRelaxed(&leave_placement_, true); }
  uint32_t size() const { return started_ + 1; }  // with the coordinator
  void AfterForkInChild();

 private:
  struct Slot {
    Gang* gang;
    uint32_t index;
    uint32_t first;  // number of the last job before it was made
  };
  static void Main(void* slot);
  static void Await(uint32_t* word);
  bool Enter();
  void Serve(uint32_t index, uint32_t seen);

  uint32_t started_ = 0;     // coordinator
  uint32_t job_number_ = 0;  // atomic; futex of the helpers
  uint32_t gate_ =
      1u << 31;          // atomic; helpers inside the job, top bit: closed; coordinator's futex
  uint32_t living_ = 0;  // atomic; helpers that have not ended yet; coordinator's futex
  bool ending_ = false;  // written before job_number_
  void (*job_)(void*, uint32_t) = nullptr;
  void* context_ = nullptr;
  bool leave_placement_ = false;  // atomic
  int cpu_ = -1;                  // coordinator; that the helpers are kept off
  long tids_[kMax] = {};          // coordinator; of the helpers
  Slot slots_[kMax] = {};
};

}  // namespace undergo::gc
