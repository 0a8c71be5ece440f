// SPDX-License-Identifier: Apache-2.0
// When to collect and how hard: Go's pacer as plain arithmetic. No clock, no global state.
// Sizes and scan work are bytes, times are nanoseconds.
#pragma once

#include "base/types.h"

namespace undergo::gc {

inline constexpr uint64_t kNoGoal = UINT64_MAX;  // never reached
inline constexpr int64_t kNoMemoryLimit = INT64_MAX;
inline constexpr int32_t kGcOff = -1;  // GOGC=off

inline constexpr double kBackgroundUtilization = 0.25;  // of all CPUs, while marking
inline constexpr uint64_t kMinimumHeap = 4 * kMiB;      // first goal at GOGC=100
inline constexpr uint64_t kMinSweepDistance = kMiB;     // of allocation between sweep and trigger
inline constexpr uint64_t kMinRunway = 64 * kKiB;       // between a cycle's start and its goal
inline constexpr int64_t kMinAssistWork = 64 * kKiB;    // an assist scans this much at least
inline constexpr int64_t kForcedGcPeriod = 120'000'000'000;

// What the memory limit is about. Needed only while a limit is set.
struct MemorySizes {
  uint64_t mapped_ready = 0;  // all memory we hold: heap not given back, tables, queues
  uint64_t heap_free = 0;     // of it, free slices and pages not given back
  uint64_t heap_alloc = 0;    // of it, objects
};

struct ScanWork {
  uint64_t heap = 0;
  uint64_t stack = 0;
  uint64_t globals = 0;  // all roots that are no stacks

  uint64_t total() const { return heap + stack + globals; }
};

struct WorkerPlan {
  int dedicated = 0;
  double fractional = 0;  // share of its time that one more worker on each other CPU marks
  int idle_max = 0;       // workers on CPUs that have nothing else to do
};

struct CycleStart {
  int64_t now = 0;
  uint64_t heap_live = 0;
  uint64_t heap_scan = 0;  // of heap_live, what may have to be scanned
  uint64_t max_stack = 0;  // all stacks as far as they may be in use
  uint64_t globals = 0;    // roots that are no stacks
  int procs = 1;
  bool timed = false;           // started by the clock, so the program is idle
  bool stop_the_world = false;  // all CPUs mark
};

struct CycleEnd {
  int64_t now = 0;
  uint64_t heap_live = 0;
  uint64_t marked = 0;   // the new live heap
  ScanWork work = {};    // done in this cycle, what was read twice included
  uint64_t globals = 0;  // roots that are no stacks, as this cycle found them
  int64_t assist_ns = 0;
  int64_t wait_ns = 0;  // of assists without a CPU
  int64_t idle_ns = 0;  // idle workers
  int64_t cpu_ns = 0;   // of the coordinator, of assists and of a copy; without helpers
  int procs = 1;
};

// What one assist owes, and what it is credited for doing it.
struct AssistDebt {
  int64_t work;
  int64_t bytes;
};

struct HeapTarget {
  uint64_t trigger;
  uint64_t goal;
};

// A cycle is StartCycle, Revise as sizes move, EndCycle, Commit. These, PutOff and the setters are
// for one thread at a time, with no cycle in between; Revise only needs that the cycle's thread is
// not in the middle of one of them. Everything const may be called by any thread at any time: it
// sees each value old or new.
class Pacer {
 public:
  // Sets both and commits, before the first cycle.
  void Init(int32_t percent, int64_t memory_limit);
  // Take effect with the next Commit (and Revise, while marking).
  void SetPercent(int32_t percent);  // GOGC; negative is off
  void SetMemoryLimit(int64_t bytes);

  void StartCycle(const CycleStart& start, const MemorySizes& sizes);
  // Adapts the assist ratio. Races between callers are harmless.
  void Revise(uint64_t heap_live, const ScanWork& work, const MemorySizes& sizes);
  // Measures the cycle. False if it was too short to tell anything. The live heap is end.marked
  // from here on.
  bool EndCycle(const CycleEnd& end, const MemorySizes& sizes);
  // What of the last cycle's heap its sweep found dead. For the next Commit.
  void NoteGarbage(uint64_t bytes);
  // New goals from the live heap and the settings. A sweep that still runs keeps the next trigger
  // away from `heap_live`.
  void Commit(uint64_t heap_live, bool sweep_done);

  // The live heap has come to the trigger, `since_last` ns after the end of the last cycle. True if
  // the cycle is put off: the goal lies further away then. It begins after `spare` bytes at the
  // latest; in small heaps, what is allocated until it ends comes on top.
  bool PutOff(uint64_t heap_live, int64_t since_last, uint64_t spare);

  // Start a cycle when the live heap reaches the trigger; it should end by the goal.
  HeapTarget Target(const MemorySizes& sizes) const;
  uint64_t Trigger(const MemorySizes& sizes) const { return Target(sizes).trigger; }
  uint64_t Goal(const MemorySizes& sizes) const;
  // The memory limit sets the goal, not GOGC.
  bool GoalIsLimit(const MemorySizes& sizes) const;
  // True if the clock demands a cycle. last_gc is the end of the last one, 0 if there was none.
  bool TimedGcDue(int64_t now, int64_t last_gc) const;

  double AssistWorkPerByte() const;
  double AssistBytesPerWork() const;
  // For a thread that allocated `bytes` more than it has credit for.
  AssistDebt DebtFor(int64_t bytes) const;
  int64_t CreditFor(int64_t work) const;  // bytes of allocation that `work` pays

  const WorkerPlan& workers() const { return workers_; }
  // The fractional worker of a CPU: `self_ns` of `elapsed_ns` since the start of the cycle.
  bool FractionalMayRun(int64_t self_ns, int64_t elapsed_ns) const;
  bool FractionalMustStop(int64_t self_ns, int64_t elapsed_ns) const;

  int32_t percent() const;
  int64_t memory_limit() const;
  uint64_t heap_marked() const;
  uint64_t last_goal() const { return last_goal_; }  // of the last cycle, 0 before the first one
  bool quiet() const { return quiet_cycles_ != 0; }  // the last cycle found next to no garbage
  uint64_t triggered() const;                        // kNoGoal outside of cycles
  uint64_t ExpectedWork() const;
  double cons_mark() const { return cons_mark_; }
  double last_utilization() const { return last_utilization_; }  // of all CPUs, 0..1

 private:
  struct GoalAndFloor {
    uint64_t goal;
    uint64_t min_trigger;
  };
  GoalAndFloor FindGoal(const MemorySizes& sizes) const;
  uint64_t MemoryLimitGoal(const MemorySizes& sizes) const;
  void PlanWorkers(const CycleStart& start);
  bool GrowsFurther() const;  // after a cycle that found next to no garbage
  uint64_t GogcGoal() const;
  double GrowthTo(uint64_t heap) const;  // times what was live
  void SetGoal(uint64_t goal, uint64_t expected_heap);
  void SetQuietGoal(uint64_t goal);

  // Settings; any thread reads.
  int32_t percent_ = 100;
  int64_t memory_limit_ = kNoMemoryLimit;

  // Of the last Commit; any thread reads.
  uint64_t percent_goal_ = kMinimumHeap;
  uint64_t sweep_min_trigger_ = 0;  // the sweeper needs the allocation up to here
  uint64_t runway_ = 0;             // bytes allocated while a cycle runs without assists
  uint64_t heap_marked_ = 0;
  uint64_t triggered_ = kNoGoal;  // heap_live at the start of the cycle that runs

  // Of the running cycle. The ratios are read by any thread.
  double work_per_byte_ = 0;
  double bytes_per_work_ = 0;
  WorkerPlan workers_;
  int64_t mark_start_ = 0;
  uint64_t heap_scan_ = 0;
  uint64_t max_stack_ = 0;
  uint64_t globals_ = 0;

  // Of the last cycle.
  uint32_t quiet_cycles_ = 0;  // so many in a row found next to no garbage
  int64_t last_cpu_ns_ = 0;    // what it took, as CycleEnd counts
  uint64_t last_heap_scan_ = 0;
  uint64_t expected_heap_ = 0;  // to be scanned by the next one
  uint64_t last_stack_scan_ = 0;
  uint64_t last_goal_ = 0;
  double last_utilization_ = 0;
  // Bytes allocated per CPU time against bytes scanned per CPU time: the largest of the last five.
  double cons_mark_ = 0;
  double last_cons_marks_[4] = {};
};

// Spreads the sweep over the allocation up to the next trigger. "Pages" are any unit of sweeping.
class SweepPacer {
 public:
  // When sweeping begins, and whenever goals change. pages_in_use counts those swept as well.
  void Pace(uint64_t trigger, uint64_t heap_live, uint64_t pages_in_use, uint64_t pages_swept);
  void Done() { pages_per_byte_ = 0; }
  // How many pages to sweep before `bytes` are taken; `caller_pages` were swept for this request
  // already.
  int64_t PagesOwed(uint64_t heap_live, uint64_t bytes, uint64_t pages_swept,
                    uint64_t caller_pages) const;

 private:
  double pages_per_byte_ = 0;
  uint64_t live_basis_ = 0;
  uint64_t swept_basis_ = 0;
};

}  // namespace undergo::gc
