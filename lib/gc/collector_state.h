// SPDX-License-Identifier: Apache-2.0
// What the parts of the collector share: requests (collector.cc), the coordinator (coordinator.cc),
// allocating threads (assist.cc), and what is printed (messages.cc).
#pragma once

#include "base/bits.h"
#include "gc/background_scavenger.h"
#include "gc/collector.h"
#include "gc/cycle.h"
#include "gc/limiter.h"
#include "gc/pacer.h"

namespace undergo::gc {

inline constexpr uint64_t kNapNs = 200'000;  // of the coordinator that had its share, and who waits
inline constexpr uint32_t kAssistants = 8;

// kRetry: a cycle was given up.
enum Request : uint32_t { kNone = 0, kHeap = 1, kTimed = 2, kForced = 4, kWakeUp = 8, kRetry = 16 };

struct Collector {
  Config config;
  Pacer pacer;
  CpuLimiter limiter;
  BackgroundScavenger scavenger;
  Cycle cycle;

  uint32_t on = 0;        // written by Start and LatchOff
  uint32_t requests = 0;  // atomic, Request bits; futex of the coordinator
  uint32_t running = 0;   // atomic; the coordinator exists
  uint32_t finished = 0;  // atomic; cycles that ended, futex of those who wait for one
  uint32_t busy = 0;      // atomic; a cycle runs
  uint32_t last_failed = 0;
  uint64_t trigger = 0;  // atomic; bytes of live heap

  uint32_t begun = 0;    // atomic; mark phases so far, futex of who requested one
  uint32_t portion = 0;  // atomic; of the coordinator's marking, futex of assists without work
  uint32_t waiting = 0;  // atomic; assists that wait for a portion
  uint64_t limiter_wall = 0, limiter_cpu = 0;  // coordinator; the limiter's last update

  // Of the running cycle.
  uint64_t cycle_goal = 0;  // atomic; bytes of live heap
  int64_t credit = 0;       // atomic; bytes scanned that no assist has claimed
  uint64_t credited = 0;    // coordinator; of its own scanning
  uint64_t assist_marked = 0, assist_scanned = 0;  // atomic
  uint64_t assist_ns = 0, assist_wait_ns = 0;      // atomic; CPU time, and without a CPU
  uint64_t start_cpu = 0, start_process_cpu = 0, start_wall = 0;  // coordinator
  bool forced = false;                                            // coordinator

  Marker* assistants = nullptr;  // kAssistants of them, mapped by the first cycle
  uint64_t free_assistants = LowMask(kAssistants);  // atomic bits

  CollectorStats stats = {};
  uint64_t gc_cpu_ns = 0;
  uint64_t process_start_ns = 0;
  uint64_t last_gc_ns = 0;  // end of the last cycle
  uint64_t spare = 0;       // coordinator; bytes that cycles may be put off for, 0 at first
  uint32_t failures = 0;    // of cycles, without a success in between
  uint64_t retry_ns = 0;  // coordinator; when the cycle that was given up is due again, 0: none is
  Facility told = Facility::kWriteProtect;  // what the trace says that is used
  bool exiting = false;                     // the last cycle of all
};
extern constinit Collector collector;

// collector.cc
MemorySizes Sizes();
void UpdateTrigger();
void SetScavengerGoals();
// `why`: Request bits. Makes the coordinator if there is none.
void RequestCycle(uint32_t why);

// coordinator.cc
void CoordinatorMain(void*);
// A mark phase has begun, or a cycle is over: wakes those who requested one. Also in stops.
void OnBlack();

// assist.cc
void PrepareAssistants();
// heap::on_allocation.
void OnAllocation(size_t bytes, int64_t* credit);
// heap::before_large.
void BeforeLarge(size_t bytes);

// messages.cc
void Say(const char* what, const char* why);
void SayStart(const char* kernel);
void SayFacility();
void TraceCycle(const CycleTimes& t, uint64_t live_at_start, uint64_t goal, uint64_t marked);
void TracePacerStart();
void TracePacerEnd(const PacerEndTrace& t);
void TraceScavenger();
// heap::on_violation.
void ReportViolation(const heap::HiddenUse& use);
// At the end of the program, if something was found.
void SummarizeUses();

}  // namespace undergo::gc
