// SPDX-License-Identifier: Apache-2.0
// The collector as others see it: settings, requests for cycles, statistics, and how it gets out of
// the program's way (filters of system calls, userfaultfd, fork).
#include "gc/collector.h"

#include "base/assert.h"
#include "gc/audit.h"
#include "gc/collector_state.h"
#include "gc/report.h"
#include "heap/blocked.h"
#include "heap/poison.h"
#include "heap/quarantine.h"
#include "heap/site.h"
#include "heap/walk.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/thread.h"
#include "world/foreign.h"
#include "world/world.h"

namespace undergo::gc {

namespace {

constexpr int kYieldTries = 5000;      // naps of a thread that opens a userfaultfd
constexpr uint32_t kSitesAtExit = 50;  // in leak reports
constexpr uint32_t kForcedTries = 5;   // cycles for one demand, when they are given up

using heap::LiveBytes;

}  // namespace

constinit Collector collector;

MemorySizes Sizes() {
  MemorySizes s;
  if (collector.config.memory_limit == INT64_MAX) return s;
  heap::MHeapStats m = HeapNow();
  s.heap_free = m.dirty_free_bytes;
  s.heap_alloc = LiveBytes();
  s.mapped_ready = MappedReady(m);
  return s;
}

void UpdateTrigger() {
  uint64_t trigger = collector.config.stress ? 0 : collector.pacer.Trigger(Sizes());
  StoreRelaxed(&collector.trigger, trigger);
}

void SetScavengerGoals() {
  MemorySizes sizes = Sizes();
  collector.scavenger.SetGoals(collector.config.memory_limit, sizes.mapped_ready,
                               collector.pacer.Goal(sizes), collector.pacer.last_goal());
}

void RequestCycle(uint32_t why) {
  switch (world::WhoseMemory()) {
    case world::Whose::kOurs: break;
    case world::Whose::kCopy:
      world::AfterForkInChild();
      AfterForkInChild();
      break;
    case world::Whose::kForeign: return world::NoteForeign();
  }
  if ((FetchOrAcqRel(&collector.requests, why) & why) == why) return;  // pairs: CoordinatorMain
  plat::FutexWake(&collector.requests, 1);
  uint32_t none = 0;
  if (!CasAcqRel(&collector.running, &none, 1u)) return;  // pairs: the coordinator's end
  if (plat::SpawnThread(CoordinatorMain, nullptr, "undergo-gc") < 0) {
    StoreRelease(&collector.running, 0u);
    StoreRelease(&collector.requests, 0u);
    FetchAddAcqRel(&collector.finished, 1u);
    plat::FutexWake(&collector.finished, INT32_MAX);
  }
}

void ReportAtExit() {
  if (!IsOn()) return;
  collector.exiting = true;
  if (collector.config.mode == heap::ReclaimMode::kReport) {
    Collect();
    ReportGarbage(kSitesAtExit, true);
  } else if (collector.config.mode == heap::ReclaimMode::kPoison) {
    // Bytes that were changed since the last cycle.
    if (Audit() != nullptr) Collect();
    SummarizeUses();
  }
}

void Start(const Config& config) {
  collector.config = config;
  collector.process_start_ns = plat::NowNs();
  heap::gc_heap.enabled = true;
  heap::gc_heap.mode = config.mode;
  heap::gc_heap.clobber = config.clobber;
  if (config.stress) heap::gc_heap.notice_bytes = 1;
  heap::on_violation = ReportViolation;
  bool sites =
      config.mode == heap::ReclaimMode::kReport || config.mode == heap::ReclaimMode::kPoison;
  if (config.mode == heap::ReclaimMode::kPoison) heap::StartPoison();
  if (config.mode == heap::ReclaimMode::kQuarantine) heap::StartQuarantine();
  if (Audit() != nullptr) FetchAddRelaxed(&Audit()->collectors, 1u);
  if (sites && !heap::EnableSites()) Say("no address space for ", "the sites of allocations");
  heap::on_allocation = OnAllocation;
  heap::before_large = BeforeLarge;
  collector.pacer.Init(config.percent, config.memory_limit);
  collector.scavenger.Start(config.procs);
  collector.limiter.SetProcs(config.procs, static_cast<int64_t>(collector.process_start_ns));
  const char* kernel;
  ChooseScanKernel(&kernel);
  if (config.unaligned) ScanEveryByte();
  uint64_t guard;
  asm("movq %%fs:0x30, %0" : "=r"(guard));
  collector.cycle.SetGuard(guard);
  collector.cycle.SetCheckMark(config.check_mark);
  collector.cycle.SetBlackHook(OnBlack);
  UpdateTrigger();
  world::EnablePublishing();
  StoreRelease(&collector.on, 1u);
  if (config.trace) SayStart(kernel);
}

void LatchOff(const char* why) {
  if (ExchangeAcqRel(&collector.on, 0u) == 0) return;  // pairs: OnAllocation
  Say("no more collections: ", why);
  heap::StopQuarantine();
}

bool IsOn() { return LoadAcquire(&collector.on) != 0; }  // pairs: Start

namespace {

bool CollectOnce() {
  // A cycle that runs already may have missed what the caller dropped.
  uint32_t from = LoadAcquire(&collector.finished);  // pairs: RunCycle
  uint32_t target = from + (LoadRelaxed(&collector.busy) != 0 ? 2 : 1);
  // Once: each stop interrupts the wait below, and a second request would be a second cycle.
  RequestCycle(kForced);
  for (;;) {
    uint32_t now = LoadAcquire(&collector.finished);  // pairs: RunCycle
    if (static_cast<int32_t>(now - target) >= 0) return collector.last_failed == 0;
    heap::CallBlocked(plat::FutexWait, &collector.finished, now);
  }
}

}  // namespace

// On a machine with too much to do a thread may not answer in time; the caller wants a collection
// all the same.
bool Collect() {
  for (uint32_t i = 0; i < kForcedTries && IsOn(); ++i) {
    if (CollectOnce()) return true;
  }
  return false;
}

int32_t SetPercent(int32_t percent) {
  int32_t old = collector.pacer.percent();
  collector.pacer.SetPercent(percent);
  if (LoadRelaxed(&collector.busy) == 0) collector.pacer.Commit(LiveBytes(), true);
  UpdateTrigger();
  return old;
}

int64_t SetMemoryLimit(int64_t bytes) {
  int64_t old = collector.pacer.memory_limit();
  if (bytes < 0) return old;
  collector.config.memory_limit = bytes;
  collector.pacer.SetMemoryLimit(bytes);
  SetScavengerGoals();
  UpdateTrigger();
  return old;
}

bool AddRoots(Addr from, Addr to) { return collector.cycle.AddRoots(from, to); }

void ReadStats(CollectorStats* out) {
  *out = collector.stats;
  out->live = LiveBytes();
  out->trigger = LoadRelaxed(&collector.trigger);
  out->goal = collector.pacer.Goal(Sizes());
  out->enabled = LoadRelaxed(&collector.on) != 0;
  out->memory = collector.cycle.MemorySize();
  if (collector.stats.cycles != 0) {
    out->memory +=
        (HeapNow().committed_bytes >> heap::kSliceShift) * (heap::kMarkStride + heap::kFateStride);
  }
  if (LoadAcquire(&collector.assistants) != nullptr) {  // pairs: PrepareAssistants
    out->memory += kAssistants * sizeof(Marker);
  }
  out->sweep = heap::sweep_counts;
}

namespace {

void WaitForRunningCycle() {
  uint32_t finished = LoadAcquire(&collector.finished);  // pairs: RunCycle
  for (;;) {
    bool runs = LoadAcquire(&collector.busy) != 0;                      // pairs: RunCycle
    if (!runs || LoadAcquire(&collector.finished) != finished) return;  // pairs: RunCycle
    plat::FutexWait(&collector.finished, finished);
  }
}

}  // namespace

void BeforeUserfaultfd() {
  collector.cycle.BeginUserfaultfd();
  WaitForRunningCycle();
  // The heap stays registered between cycles.
  for (int i = 0; i < kYieldTries && collector.cycle.HoldsUserfaultfd() && IsOn(); ++i) {
    RequestCycle(kWakeUp);
    plat::NapNs(kNapNs);
  }
}

void BeforeFilter(const FilterVerdict& verdict) {
  if (LoadRelaxed(&collector.on) == 0) return;
  collector.cycle.Restrict(verdict);
  if (!verdict.deadly) {
    if (verdict.no_uffd || verdict.no_snapshot || verdict.no_pipes || verdict.no_placement) {
      WaitForRunningCycle();
    }
    return;
  }
  // Most such programs never collect: only who asked for traces is told.
  if (collector.config.trace) {
    LatchOff("a filter of system calls would kill the process");
  } else {
    StoreRelease(&collector.on, 0u);  // pairs: OnAllocation
  }
  // The threads of ours must be gone before the filter is there.
  FetchOrAcqRel(&collector.requests, uint32_t{kWakeUp});  // pairs: CoordinatorMain
  plat::FutexWake(&collector.requests, 1);
  while (LoadAcquire(&collector.running) != 0) plat::NapNs(kNapNs);  // pairs: CoordinatorMain
  plat::NapNs(kNapNs);                                               // its last instructions
}

void AfterUserfaultfd() { collector.cycle.EndUserfaultfd(); }

bool BeforeExec() {
  // No cycle, no copy.
  if (LoadRelaxed(&collector.on) == 0 || world::WhoseMemory() != world::Whose::kOurs) return false;
  collector.cycle.BeginExec();
  return true;
}

void AfterExec() { collector.cycle.EndExec(); }

void CheckTimer(uint64_t now) {
  if (LoadRelaxed(&collector.on) == 0 || LoadRelaxed(&collector.busy) != 0) return;
  auto last = static_cast<int64_t>(LoadRelaxed(&collector.last_gc_ns));
  if (collector.pacer.TimedGcDue(static_cast<int64_t>(now), last)) RequestCycle(kTimed);
}

void AfterForkInChild() {
  // What was found so far is the parent's.
  bool any = LoadRelaxed(&heap::sweep_counts.hidden_frees) != 0 && heap::sites_on;
  for (uint32_t id = 1; any && id < heap::kMaxSites; ++id) heap::SiteById(id)->uses = 0;
  heap::sweep_counts.hidden_frees = 0;
  if (Audit() != nullptr) {
    FetchAddRelaxed(&Audit()->processes, 1u);
    if (IsOn()) FetchAddRelaxed(&Audit()->collectors, 1u);
  }
  collector.running = collector.requests = collector.busy = 0;
  collector.free_assistants = LowMask(kAssistants);
  collector.cycle.AfterForkInChild();
  heap::RepairPoisonInChild();
  if (!heap::gc_heap.unswept) return;
  heap::ForEachSpan([](heap::Span* s) { heap::KeepHalfSwept(s); });
}

}  // namespace undergo::gc
