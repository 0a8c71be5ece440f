// SPDX-License-Identifier: Apache-2.0
// Helpers of the coordinator.
//
// A sleeping thread takes tens of microseconds to wake up, as long as a whole stop should last. So
// nobody waits for a helper to come: a job has a gate, which the coordinator closes when it has
// done what it can do itself. Who comes too late goes back to sleep.
//
// A helper must not come at the coordinator's cost: the kernel likes to wake a thread on the CPU of
// the one that wakes it, also when another is idle, and lets it run first. Then the coordinator
// waits for the next tick, milliseconds away, and the world with it. So helpers are kept off its
// CPU; on the others the threads of the program have just stopped.
//
// Rejected: helpers that wake before the world is asked to stop and wait actively. They take the
// CPU on which a thread of the program should answer: with two CPUs each stop took half a
// millisecond longer.
#include "gc/gang.h"

#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/thread.h"

namespace undergo::gc {

namespace {
constexpr uint32_t kClosed = 1u << 31;  // of gate_
constexpr uint32_t kSpins = 2000;       // of the coordinator, before it sleeps
}  // namespace

void Gang::Start(uint32_t helpers) {
  while (started_ < Min(helpers, kMax - 1)) {
    Slot& slot = slots_[started_];
    slot = {this, started_ + 1, LoadRelaxed(&job_number_)};
    long tid = plat::SpawnThread(Main, &slot, "undergo-mark");
    if (tid < 0) return;
    tids_[started_++] = tid;
    cpu_ = -1;
  }
}

// Until the lower bits of a word are zero.
void Gang::Await(uint32_t* word) {
  for (uint32_t spins = 0;; ++spins) {
    uint32_t now = LoadAcquire(word);  // pairs: Serve
    if ((now & ~kClosed) == 0) return;
    if (spins < kSpins) {
      CpuRelax();
    } else {
      plat::FutexWait(word, now);
    }
  }
}

void Gang::Stop() {
  if (started_ == 0) return;
  StoreRelaxed(&living_, started_);
  ending_ = true;
  FetchAddAcqRel(&job_number_, 1u);  // pairs: Serve
  plat::FutexWake(&job_number_, INT32_MAX);
  Await(&living_);
  ending_ = false;
  started_ = 0;
}

void Gang::Run(void (*job)(void* context, uint32_t i), void* context) {
  if (started_ != 0) {
    if (!LoadRelaxed(&leave_placement_)) plat::KeepOffOwnCpu(tids_, started_, &cpu_);
    job_ = job;
    context_ = context;
    StoreRelease(&gate_, 0u);          // pairs: Enter
    FetchAddAcqRel(&job_number_, 1u);  // pairs: Serve
    plat::FutexWake(&job_number_, INT32_MAX);
  }
  job(context, 0);
  if (started_ == 0) return;
  FetchOrAcqRel(&gate_, kClosed);  // pairs: Enter, Serve
  Await(&gate_);
}

// False when the job is over.
bool Gang::Enter() {
  uint32_t gate = LoadAcquire(&gate_);  // pairs: Run
  do {
    if ((gate & kClosed) != 0) return false;
  } while (!CasAcqRel(&gate_, &gate, gate + 1));  // pairs: Run
  return true;
}

void Gang::Serve(uint32_t index, uint32_t seen) {
  for (;;) {
    while (LoadAcquire(&job_number_) == seen) plat::FutexWait(&job_number_, seen);  // pairs: Run
    if (ending_) break;
    bool inside = Enter();
    // After entering: the number is that of this job or, outside, of one that is over.
    seen = LoadAcquire(&job_number_);  // pairs: Run
    if (!inside) continue;
    job_(context_, index);
    // pairs: Await
    if (FetchAddAcqRel(&gate_, ~uint32_t{0}) == (kClosed | 1)) plat::FutexWake(&gate_, 1);
  }
  if (FetchAddAcqRel(&living_, ~uint32_t{0}) == 1) plat::FutexWake(&living_, 1);  // pairs: Await
}

void Gang::Main(void* slot) {
  auto* s = static_cast<Slot*>(slot);
  s->gang->Serve(s->index, s->first);
}

void Gang::AfterForkInChild() {
  started_ = 0;
  gate_ = kClosed;
}

}  // namespace undergo::gc
