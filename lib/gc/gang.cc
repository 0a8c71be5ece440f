// SPDX-License-Identifier: Apache-2.0
// Helpers of the coordinator.
//
// A sleeping thread takes tens of microseconds to wake up, as long as a whole stop should last. So
// the helpers are roused before the world is asked to stop, and then wait for the job actively for
// a bounded time; who gave up waiting is woken as usual.
#include "gc/gang.h"

#include "base/atomic.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/thread.h"

namespace undergo::gc {

namespace {
constexpr uint64_t kActiveNs = 500'000;
constexpr uint32_t kSpins = 2000;  // of the coordinator, before it sleeps
}  // namespace

void Gang::Start(uint32_t helpers) {
  while (started_ < Min(helpers, kMax - 1)) {
    Slot& slot = slots_[started_];
    slot = {this, started_ + 1, LoadRelaxed(&job_number_)};
    if (plat::SpawnThread(Main, &slot, "undergo-mark") < 0) return;
    ++started_;
  }
}

void Gang::Stop() {
  if (started_ == 0) return;
  ending_ = true;
  Run([](void*, uint32_t) {}, nullptr);
  ending_ = false;
  started_ = 0;
}

void Gang::Rouse() {
  if (started_ == 0) return;
  rouse_ = true;
  Run([](void*, uint32_t) {}, nullptr);
  rouse_ = false;
}

void Gang::Run(void (*job)(void* context, uint32_t i), void* context) {
  job_ = job;
  context_ = context;
  StoreRelaxed(&working_, started_);
  FetchAddAcqRel(&job_number_, 1u);  // pairs: Serve
  plat::FutexWake(&job_number_, INT32_MAX);
  job(context, 0);
  for (uint32_t spins = 0;; ++spins) {
    uint32_t left = LoadAcquire(&working_);  // pairs: Serve
    if (left == 0) return;
    if (spins < kSpins) {
      CpuRelax();
    } else {
      plat::FutexWait(&working_, left);
    }
  }
}

void Gang::Serve(uint32_t index, uint32_t seen) {
  uint64_t active_until = 0;
  for (;;) {
    uint32_t now;
    while ((now = LoadAcquire(&job_number_)) == seen) {  // pairs: Run
      if (active_until != 0 && plat::NowNs() < active_until) {
        CpuRelax();
      } else {
        plat::FutexWait(&job_number_, seen);
      }
    }
    seen = now;
    bool ending = ending_;
    active_until = rouse_ ? plat::NowNs() + kActiveNs : 0;
    job_(context_, index);
    if (FetchAddAcqRel(&working_, ~uint32_t{0}) == 1) plat::FutexWake(&working_, 1);  // pairs: Run
    if (ending) return;
  }
}

void Gang::Main(void* slot) {
  auto* s = static_cast<Slot*>(slot);
  s->gang->Serve(s->index, s->first);
}

void Gang::AfterForkInChild() { started_ = 0; }

}  // namespace undergo::gc
