// SPDX-License-Identifier: Apache-2.0
// The part of allocating threads: they tell how the heap grows, request a cycle at the trigger, and
// while one marks they scan as much as the pacer says that they owe, unless the coordinator has
// done it already. Where that is not enough to keep the heap at its goal, they scan on or wait.
#include "base/bits.h"
#include "gc/collector_state.h"
#include "heap/blocked.h"
#include "heap/thread_words.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/vm.h"

namespace undergo::gc {

namespace {

constexpr uint64_t kStartWaitNs = 10'000'000;  // of a thread whose allocation requested a cycle
constexpr uint64_t kFinishWaitNs = 5'000'000;  // of a thread that allocates at the end of a mark
constexpr uint64_t kGoalWaitNs = 5'000'000;    // and for each 64 KiB when the heap is at its goal
constexpr uint64_t kMaxGoalWaitNs = 500'000'000;
constexpr uint64_t kStressWaitNs = 1'000'000'000;  // for the end of a cycle
constexpr uint32_t kAssistTries = 5;
constexpr uint64_t kAssistPiece = 32 * kKiB;

using heap::LiveBytes;

// What a thread does for a cycle instead of its own work, for the pacer and the limiter. CPU time
// is counted where the thread stays on its kernel thread, whose clock it is: while it scans.
// Anywhere else the scheduler may move it to another one.
class AssistTime {
 public:
  AssistTime() : wall_(plat::NowNs()) {}
  ~AssistTime() {
    uint64_t now = plat::NowNs();
    FetchAddRelaxed(&collector.assist_ns, cpu_);
    FetchAddRelaxed(&collector.assist_wait_ns, now - wall_ > cpu_ ? now - wall_ - cpu_ : 0);
    collector.limiter.AddAssist(static_cast<int64_t>(cpu_));
    collector.limiter.Update(static_cast<int64_t>(now));
  }
  AssistTime(const AssistTime&) = delete;
  AssistTime& operator=(const AssistTime&) = delete;
  void AddCpu(uint64_t ns) { cpu_ += ns; }

 private:
  uint64_t wall_, cpu_ = 0;
};

// Scans up to `work` bytes, but a piece at most: the world cannot stop meanwhile. Bytes scanned, 0:
// there is nothing to scan just now. Any thread of the program.
uint64_t ScanFor(int64_t work, AssistTime* time) {
  heap::BusyScope busy;
  // Within a BusyScope the phase cannot change.
  if (!heap::gc_heap.black || LoadAcquire(&collector.assistants) == nullptr)
    return 0;  // pairs: PrepareAssistants
  uint64_t free = LoadRelaxed(&collector.free_assistants);
  uint32_t i;
  do {
    if (free == 0) return 0;
    i = LowestBit(free);
  } while (!CasAcqRel(&collector.free_assistants, &free,
                      free & (free - 1)));  // pairs: the release below
  uint64_t start = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  Marker& m = collector.assistants[i];
  m.Start(&collector.cycle.pool(), collector.cycle.target(), collector.cycle.clean_pages());
  collector.cycle.pool().BeginScan();
  // But the cycle may have been abandoned; then the next one does not wait for who comes later.
  if (LoadRelaxed(&heap::gc_heap.black)) {  // pairs: Cycle::Begin
    m.Drain(Min(static_cast<uint64_t>(work), kAssistPiece));
    m.Flush();
    ForgetScanned();
  }
  collector.cycle.pool().EndScan();
  uint64_t scanned = m.counts().scanned_bytes;
  FetchAddRelaxed(&collector.assist_marked, m.counts().marked_bytes);
  FetchAddRelaxed(&collector.assist_scanned, scanned);
  FetchOrAcqRel(&collector.free_assistants, uint64_t{1} << i);  // pairs: the CAS above
  time->AddCpu(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - start);
  return scanned;
}

// Pays for allocation while marking: from the coordinator's credit, else by scanning, else, when
// there is nothing to scan just now, by waiting a little for the coordinator's next portion.
void Assist(int64_t* credit) {
  AssistDebt debt = collector.pacer.DebtFor(-*credit);
  if (debt.work <= 0 || collector.limiter.Limiting()) return;
  AssistTime time;
  int64_t left = debt.work;
  for (uint32_t tries = 0; tries < kAssistTries && heap::gc_heap.black;) {
    uint32_t portion = LoadAcquire(&collector.portion);  // pairs: Throttle
    if (FetchAddRelaxed(&collector.credit, -left) >= left) break;
    FetchAddRelaxed(&collector.credit, left);
    uint64_t scanned = ScanFor(left, &time);
    left -= static_cast<int64_t>(scanned);
    if (left <= 0) break;
    if (scanned != 0) continue;
    ++tries;
    if (collector.cycle.pool().AwaitWork()) continue;
    FetchAddAcqRel(&collector.waiting, 1u);  // pairs: Throttle
    heap::CallBlocked(plat::FutexWaitFor, &collector.portion, portion, kNapNs);
    FetchAddAcqRel(&collector.waiting, ~uint32_t{0});  // pairs: Throttle
  }
  *credit += debt.bytes;
}

// The heap has come to the goal of the cycle, or would with `more` bytes, and must not run away.
bool AtGoal(size_t more) {
  return LiveBytes() + more >= LoadRelaxed(&collector.cycle_goal) && !collector.limiter.Limiting();
}

// At the goal the thread scans until the mark is over. All objects may be marked already, while
// written pages are looked at once more: then there is only waiting.
void WaitAtGoal(size_t bytes, size_t more) {
  if (!AtGoal(more)) return;
  AssistTime time;
  uint64_t start = plat::NowNs();
  uint64_t most = Min(kGoalWaitNs * (1 + bytes / heap::kAllocationBatch), kMaxGoalWaitNs);
  for (uint64_t waited = 0; heap::gc_heap.black && waited < most; waited = plat::NowNs() - start) {
    if (ScanFor(kAssistPiece, &time) != 0 || collector.cycle.pool().AwaitWork()) continue;
    collector.cycle.WaitForEnd(Min(kNapNs, most - waited));
  }
}

// A cycle runs but does not mark: its first stop is still to come, or it sweeps. On a machine with
// too much to do the coordinator may be waiting for a CPU then, and many threads can allocate many
// times the heap before it gets one.
void WaitBesideMark() {
  uint32_t begun = LoadAcquire(&collector.begun);  // pairs: OnBlack
  if (LoadRelaxed(&collector.busy) == 0 || !AtGoal(0)) return;
  heap::CallBlocked(plat::FutexWaitFor, &collector.begun, begun, kGoalWaitNs);
}

// The part of an allocating thread in keeping to the scavenger's goals.
void Scavenge() {
  collector.limiter.AddAssist(
      collector.scavenger.Assist(collector.config.memory_limit, collector.limiter.Limiting()));
}

// Under stress each allocation that takes new slots is followed by the end of a cycle.
void StressCycle() {
  uint32_t finished = LoadAcquire(&collector.finished);  // pairs: RunCycle
  RequestCycle(kHeap);
  uint64_t start = plat::NowNs();
  for (uint64_t waited = 0; waited < kStressWaitNs; waited = plat::NowNs() - start) {
    if (LoadAcquire(&collector.finished) != finished) return;  // pairs: RunCycle
    heap::CallBlocked(plat::FutexWaitFor, &collector.finished, finished, kStressWaitNs - waited);
  }
}

}  // namespace

void PrepareAssistants() {
  if (collector.assistants != nullptr) return;
  auto* m = static_cast<Marker*>(plat::MapPages(kAssistants * sizeof(Marker)));
  StoreRelease(&collector.assistants, m);  // pairs: ScanFor
}

// One large object can carry the heap far beyond its goal, so the wait comes before.
void BeforeLarge(size_t bytes) {
  if (LoadRelaxed(&collector.on) == 0 || !heap::gc_heap.black) return;
  WaitAtGoal(bytes, bytes);
}

void OnAllocation(size_t bytes, int64_t* credit) {
  if (LoadRelaxed(&collector.on) == 0) return;
  if (collector.config.stress) return StressCycle();
  if (heap::gc_heap.black) {
    if (collector.cycle.IsFinishing()) {
      AssistTime time;
      collector.cycle.WaitForFinish(kFinishWaitNs);
    }
    *credit -= static_cast<int64_t>(bytes);
    if (*credit < 0) Assist(credit);
    WaitAtGoal(bytes, 0);
    return;
  }
  *credit = 0;
  if (collector.scavenger.Watches()) Scavenge();
  if (LoadRelaxed(&collector.busy) != 0) return WaitBesideMark();
  if (collector.config.memory_limit != INT64_MAX) UpdateTrigger();
  if (LiveBytes() >= LoadRelaxed(&collector.trigger)) {
    uint32_t begun = LoadAcquire(&collector.begun);  // pairs: OnBlack
    RequestCycle(kHeap);
    // As if this thread started the cycle itself: otherwise the heap runs ahead of it.
    heap::CallBlocked(plat::FutexWaitFor, &collector.begun, begun, kStartWaitNs);
  } else if (collector.pacer.TimedGcDue(static_cast<int64_t>(plat::CoarseNowNs()),
                                        static_cast<int64_t>(LoadRelaxed(&collector.last_gc_ns)))) {
    RequestCycle(kTimed);
  }
}

}  // namespace undergo::gc
