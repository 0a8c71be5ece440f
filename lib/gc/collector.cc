// SPDX-License-Identifier: Apache-2.0
// When to collect, and who does it.
//
// The coordinator is a thread of ours that glibc does not know. The first request makes it, and it
// ends when it had nothing to do for a while, so a program that needs no collection never sees it.
// It runs the cycles (gc.cc), sweeps, and paces: the allocating threads tell how the heap grows
// (heap::on_allocation); at the trigger they request a cycle, and while one runs they scan as much
// as the pacer says that they owe, unless the coordinator has done it already.
//
// The coordinator marks a quarter of the CPU time of GOMAXPROCS CPUs, and beyond that what CPUs
// have idle: the process' CPU time tells. A forced cycle takes what it gets.
#include "gc/collector.h"

#include "base/assert.h"
#include "base/fmt.h"
#include "gc/audit.h"
#include "gc/background_scavenger.h"
#include "gc/cycle.h"
#include "gc/limiter.h"
#include "gc/pacer.h"
#include "gc/pauses.h"
#include "gc/report.h"
#include "gc/trace.h"
#include "heap/mheap.h"
#include "heap/poison.h"
#include "heap/quarantine.h"
#include "heap/site.h"
#include "heap/thread_words.h"
#include "heap/walk.h"
#include "plat/backtrace.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/log.h"
#include "plat/thread.h"
#include "plat/vm.h"
#include "world/foreign.h"
#include "world/world.h"

namespace undergo::gc {

namespace {

constexpr uint64_t kIdleExitNs = 5'000'000'000;  // without a request
constexpr uint64_t kIdleTickNs = 100'000'000;    // between looks at the page heap meanwhile
constexpr uint64_t kNapNs = 200'000;             // when the coordinator had its share
constexpr uint64_t kStartWaitNs = 2'000'000;     // of a thread whose allocation requested a cycle
constexpr uint64_t kFinishWaitNs = 5'000'000;    // of a thread that allocates at the end of a mark
constexpr uint64_t kGoalWaitNs = 5'000'000;      // and for each 64 KiB when the heap is at its goal
constexpr uint64_t kMaxGoalWaitNs = 500'000'000;
constexpr uint64_t kSweepStopNs = 10'000'000;      // gcstoptheworld=2: for the answers
constexpr uint64_t kStressWaitNs = 1'000'000'000;  // for the end of a cycle
constexpr uint32_t kAssistTries = 5;
constexpr int kYieldTries = 5000;  // naps of a thread that opens a userfaultfd
constexpr uint32_t kSitesPerCycle = 5, kSitesAtExit = 50;  // in leak reports
constexpr uint32_t kLinesPerSite = 3;                      // about hidden pointers
constexpr uint32_t kForcedTries = 5;  // cycles for one demand, when they are given up
constexpr uint32_t kAssistants = 8;

enum Request : uint32_t { kNone = 0, kHeap = 1, kTimed = 2, kForced = 4, kWakeUp = 8 };

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
  uint64_t assist_marked = 0, assist_scanned = 0, assist_ns = 0;  // atomic
  uint64_t start_cpu = 0, start_process_cpu = 0, start_wall = 0;  // coordinator
  bool forced = false;                                            // coordinator

  Marker* assistants = nullptr;  // kAssistants of them, mapped by the first cycle
  uint64_t free_assistants = LowMask(kAssistants);  // atomic bits

  CollectorStats stats = {};
  uint64_t gc_cpu_ns = 0;
  uint64_t process_start_ns = 0;
  uint64_t last_gc_ns = 0;  // end of the last cycle
  uint32_t failures = 0;
  Facility told = Facility::kWriteProtect;  // what the trace says that is used
  bool exiting = false;                     // the last cycle of all
};
constinit Collector c;

using heap::LiveBytes;

MemorySizes Sizes() {
  MemorySizes s;
  if (c.config.memory_limit == INT64_MAX) return s;
  heap::MHeapStats m = HeapNow();
  s.heap_free = m.dirty_free_bytes;
  s.heap_alloc = LiveBytes();
  s.mapped_ready = MappedReady(m);
  return s;
}

void Say(const char* what, const char* why) {
  char line[256];
  Fmt out(line, sizeof line);
  out.Str("undergo: ").Str(what).Str(why).Char('\n');
  plat::LogWrite(out.text(), out.length());
}

void UpdateTrigger() {
  uint64_t trigger = c.config.stress ? 0 : c.pacer.Trigger(Sizes());
  StoreRelaxed(&c.trigger, trigger);
}

void CoordinatorMain(void*);

void RequestCycle(uint32_t why) {
  switch (world::WhoseMemory()) {
    case world::Whose::kOurs: break;
    case world::Whose::kCopy:
      world::AfterForkInChild();
      AfterForkInChild();
      break;
    case world::Whose::kForeign: return world::NoteForeign();
  }
  if ((FetchOrAcqRel(&c.requests, why) & why) == why) return;  // pairs: CoordinatorMain
  plat::FutexWake(&c.requests, 1);
  uint32_t none = 0;
  if (!CasAcqRel(&c.running, &none, 1u)) return;  // pairs: the coordinator's end
  if (plat::SpawnThread(CoordinatorMain, nullptr, "undergo-gc") < 0) {
    StoreRelease(&c.running, 0u);
    StoreRelease(&c.requests, 0u);
    FetchAddAcqRel(&c.finished, 1u);
    plat::FutexWake(&c.finished, INT32_MAX);
  }
}

// --- Assists ---

// Scans up to `work` bytes; bytes scanned. Any thread of the program.
uint64_t ScanFor(int64_t work) {
  heap::BusyScope busy;
  // Within a BusyScope the phase cannot change.
  if (!heap::gc_heap.black || LoadAcquire(&c.assistants) == nullptr)
    return 0;  // pairs: PrepareAssistants
  uint64_t free = LoadRelaxed(&c.free_assistants);
  uint32_t i;
  do {
    if (free == 0) return 0;
    i = LowestBit(free);
  } while (!CasAcqRel(&c.free_assistants, &free, free & (free - 1)));  // pairs: the release below
  Marker& m = c.assistants[i];
  m.Start(&c.cycle.pool(), c.cycle.target());
  m.Drain(static_cast<uint64_t>(work));
  m.Flush();
  uint64_t scanned = m.counts().scanned_bytes;
  FetchAddRelaxed(&c.assist_marked, m.counts().marked_bytes);
  FetchAddRelaxed(&c.assist_scanned, scanned);
  FetchOrAcqRel(&c.free_assistants, uint64_t{1} << i);  // pairs: the CAS above
  return scanned;
}

// Pays for allocation while marking: from the coordinator's credit, else by scanning, else, when
// there is nothing to scan just now, by waiting a little for the coordinator's next portion.
void Assist(int64_t* credit) {
  AssistDebt debt = c.pacer.DebtFor(-*credit);
  if (debt.work <= 0 || c.limiter.Limiting()) return;
  uint64_t start = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  int64_t left = debt.work;
  for (uint32_t tries = 0; tries < kAssistTries && heap::gc_heap.black; ++tries) {
    uint32_t portion = LoadAcquire(&c.portion);  // pairs: Throttle
    if (FetchAddRelaxed(&c.credit, -left) >= left) {
      left = 0;
      break;
    }
    FetchAddRelaxed(&c.credit, left);
    left -= static_cast<int64_t>(ScanFor(left));
    if (left <= 0) break;
    FetchAddAcqRel(&c.waiting, 1u);  // pairs: Throttle
    plat::FutexWaitFor(&c.portion, portion, kNapNs);
    FetchAddAcqRel(&c.waiting, ~uint32_t{0});  // pairs: Throttle
  }
  *credit += debt.bytes;
  int64_t took = static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - start);
  FetchAddRelaxed(&c.assist_ns, static_cast<uint64_t>(took));
  c.limiter.AddAssist(took);
  c.limiter.Update(static_cast<int64_t>(plat::NowNs()));
}

// The heap is at its goal and must not run away. All objects may be marked already, while written
// pages are looked at once more: then there is nothing to assist with, only to wait.
void WaitAtGoal(size_t bytes) {
  if (LiveBytes() < LoadRelaxed(&c.cycle_goal) || c.limiter.Limiting()) return;
  c.cycle.WaitForEnd(Min(kGoalWaitNs * (1 + bytes / heap::kAllocationBatch), kMaxGoalWaitNs));
}

// The part of an allocating thread in keeping to the scavenger's goals.
void Scavenge() {
  c.limiter.AddAssist(c.scavenger.Assist(c.config.memory_limit, c.limiter.Limiting()));
}

// Under stress each allocation that takes new slots is followed by the end of a cycle.
void StressCycle() {
  uint32_t finished = LoadAcquire(&c.finished);  // pairs: RunCycle
  RequestCycle(kHeap);
  uint64_t start = plat::NowNs();
  for (uint64_t waited = 0; waited < kStressWaitNs; waited = plat::NowNs() - start) {
    if (LoadAcquire(&c.finished) != finished) return;  // pairs: RunCycle
    plat::FutexWaitFor(&c.finished, finished, kStressWaitNs - waited);
  }
}

void OnAllocation(size_t bytes, int64_t* credit) {
  if (LoadRelaxed(&c.on) == 0) return;
  if (c.config.stress) return StressCycle();
  if (heap::gc_heap.black) {
    c.cycle.WaitForFinish(kFinishWaitNs);
    *credit -= static_cast<int64_t>(bytes);
    if (*credit < 0) Assist(credit);
    WaitAtGoal(bytes);
    return;
  }
  *credit = 0;
  if (c.scavenger.Watches()) Scavenge();
  if (LoadRelaxed(&c.busy) != 0) return;
  if (c.config.memory_limit != INT64_MAX) UpdateTrigger();
  if (LiveBytes() >= LoadRelaxed(&c.trigger)) {
    uint32_t begun = LoadAcquire(&c.begun);  // pairs: OnBlack
    RequestCycle(kHeap);
    // As if this thread started the cycle itself: otherwise the heap runs ahead of it.
    plat::FutexWaitFor(&c.begun, begun, kStartWaitNs);
  } else if (c.pacer.TimedGcDue(static_cast<int64_t>(plat::CoarseNowNs()),
                                static_cast<int64_t>(LoadRelaxed(&c.last_gc_ns)))) {
    RequestCycle(kTimed);
  }
}

// --- The coordinator ---

ScanWork WorkDone() {
  ScanWork w;
  w.heap = c.cycle.counts().scanned_bytes + LoadRelaxed(&c.assist_scanned);
  w.globals = c.cycle.counts().root_bytes;
  return w;
}

// CPUs that nobody used, and what the coordinator took of them, are neither party's time.
void UpdateLimiter(uint64_t now) {
  uint64_t wall = now - c.limiter_wall;
  uint64_t all = plat::NowNs(CLOCK_PROCESS_CPUTIME_ID);
  auto possible = static_cast<int64_t>(wall * static_cast<uint64_t>(c.config.procs));
  auto used = static_cast<int64_t>(all - c.limiter_cpu);
  if (possible > used) c.limiter.AddIdle(possible - used);
  c.limiter_wall = now;
  c.limiter_cpu = all;
  c.limiter.Update(static_cast<int64_t>(now));
}

void OnBlack() {
  FetchAddAcqRel(&c.begun, 1u);  // pairs: OnAllocation
  plat::FutexWake(&c.begun, INT32_MAX);
}

void Throttle() {
  uint64_t scanned = c.cycle.counts().scanned_bytes;
  FetchAddRelaxed(&c.credit, static_cast<int64_t>(scanned - c.credited));
  c.credited = scanned;
  MemorySizes sizes = Sizes();
  c.pacer.Revise(LiveBytes(), WorkDone(), sizes);
  StoreRelaxed(&c.cycle_goal, c.pacer.Goal(sizes));
  FetchAddAcqRel(&c.portion, 1u);                                            // pairs: Assist
  if (LoadAcquire(&c.waiting) != 0) plat::FutexWake(&c.portion, INT32_MAX);  // pairs: Assist
  uint64_t now = plat::NowNs();
  if (c.limiter.NeedsUpdate(static_cast<int64_t>(now))) UpdateLimiter(now);
  if (c.forced) return;
  uint64_t wall = now - c.start_wall;
  uint64_t own = plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - c.start_cpu;
  uint64_t all = plat::NowNs(CLOCK_PROCESS_CPUTIME_ID) - c.start_process_cpu;
  auto procs = static_cast<uint64_t>(c.config.procs);
  // The program leaves (most of) a CPU unused.
  bool idle = (all - own) * 10 < wall * (procs * 10 - 8);
  if (idle || own * 4 <= wall * procs) return;
  plat::NapNs(kNapNs);
}

void SweepAll() {
  heap::ForEachSpan([](heap::Span* s) {
    heap::BusyScope busy;
    if (LoadRelaxed(&s->state) == heap::SpanState::kLarge) {
      heap::SweepLarge(s);
    } else {
      heap::SweepSpan(s);
    }
  });
  // Those that others began.
  heap::ForEachSpan([](heap::Span* s) {
    if (LoadRelaxed(&s->state) != heap::SpanState::kLarge) heap::EnsureSwept(s);
  });
  StoreRelease(&heap::gc_heap.unswept, false);  // pairs: NeedsSweep
}

// With gcstoptheworld=2 in a stop of its own.
void SweepByMode() {
  if (c.config.stop_the_world < 2) return SweepAll();
  uint64_t began = plat::NowNs();
  bool stopped = world::StopTheWorld(kSweepStopNs) == world::StopResult::kStopped;
  pauses.stopping.Add(plat::NowNs() - began);
  SweepAll();
  if (!stopped) return;
  pauses.total.Add(plat::NowNs() - began);
  world::StartTheWorld();
}

void PrepareSweep() {
  uint64_t goal = c.pacer.Goal(Sizes());
  uint64_t budget = goal == kNoGoal ? LiveBytes() / 16 : goal / 32;
  uint64_t waiting = LoadRelaxed(&heap::sweep_counts.condemned_bytes);
  heap::gc_heap.now_ms = static_cast<uint32_t>(plat::NowNs() / 1'000'000);
  int64_t left = static_cast<int64_t>(Max(budget, kMiB)) - static_cast<int64_t>(waiting);
  StoreRelaxed(&heap::gc_heap.probation_left, left);
  heap::gc_heap.no_probation =
      c.config.memory_limit != INT64_MAX &&
      Sizes().mapped_ready > static_cast<uint64_t>(c.config.memory_limit / 8 * 7);
  heap::sweep_counts.garbage_objects = heap::sweep_counts.garbage_bytes = 0;
}

void SetScavengerGoals() {
  MemorySizes sizes = Sizes();
  c.scavenger.SetGoals(c.config.memory_limit, sizes.mapped_ready, c.pacer.Goal(sizes),
                       c.pacer.last_goal());
}

void TraceScavenger() {
  if (!c.config.scavenger_trace) return;
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatScavenge(c.scavenger.TakeTrace(), &out);
  plat::LogWrite(out.text(), out.length());
}

void Trace(const CycleTimes& t, uint64_t live_at_start, uint64_t goal, uint64_t marked) {
  GcTrace line;
  line.cycle = c.stats.cycles;
  line.start = static_cast<int64_t>(t.start_ns - c.process_start_ns);
  line.gc_share = c.stats.cpu_fraction;
  line.first_stop = static_cast<int64_t>(t.stop1_ns);
  line.mark = static_cast<int64_t>(t.mark_ns);
  line.second_stop = static_cast<int64_t>(t.stop2_ns);
  line.stop_procs = c.config.procs;
  line.assist = static_cast<int64_t>(LoadRelaxed(&c.assist_ns));
  line.workers =
      static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - c.start_cpu + t.copy_ns);
  line.live_at_start = live_at_start;
  line.live_at_end = t.live_at_end;
  line.marked = marked;
  line.goal = goal;
  line.stacks = t.stack_bytes;
  line.globals = t.globals_bytes;
  line.procs = c.config.procs;
  line.forced = c.forced;
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatGcTrace(line, &out);
  plat::LogWrite(out.text(), out.length());
}

void TracePacerStart() {
  if (!c.config.pacer_trace) return;
  PacerStartTrace t;
  t.work_per_byte = c.pacer.AssistWorkPerByte();
  t.heap_scan = t.heap_live = LiveBytes();
  t.goal = c.pacer.Goal(Sizes());
  t.dedicated = c.pacer.workers().dedicated;
  t.fractional = c.pacer.workers().fractional;
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatPacerStart(t, &out);
  plat::LogWrite(out.text(), out.length());
}

void PrepareAssistants() {
  if (c.assistants != nullptr) return;
  auto* m = static_cast<Marker*>(plat::MapPages(kAssistants * sizeof(Marker)));
  StoreRelease(&c.assistants, m);  // pairs: ScanFor
}

void BeginCycle(uint32_t why, uint64_t live) {
  c.forced = (why & kForced) != 0 || c.config.stress;
  c.credit = 0;
  c.credited = 0;
  c.assist_marked = c.assist_scanned = c.assist_ns = 0;
  c.start_wall = plat::NowNs();
  c.start_cpu = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  c.start_process_cpu = plat::NowNs(CLOCK_PROCESS_CPUTIME_ID);
  c.limiter_wall = c.start_wall;
  c.limiter_cpu = c.start_process_cpu;
  c.limiter.StartTransition(true, static_cast<int64_t>(c.start_wall), c.stats.cycles + 1);
  c.limiter.FinishTransition(static_cast<int64_t>(c.start_wall));
  if ((why & kTimed) != 0 && c.config.trace) plat::LogWrite(kTimedGcLine, sizeof kTimedGcLine - 1);
  CycleStart start;
  start.now = static_cast<int64_t>(c.start_wall);
  start.heap_live = start.heap_scan = live;
  start.globals = c.cycle.times().globals_bytes;
  start.max_stack = c.cycle.times().stack_bytes;
  start.procs = c.config.procs;
  start.timed = (why & kTimed) != 0;
  MemorySizes sizes = Sizes();
  c.pacer.StartCycle(start, sizes);
  StoreRelaxed(&c.cycle_goal, c.pacer.Goal(sizes));
  TracePacerStart();
}

// What the coordinator took beyond its quarter, from CPUs that were idle.
int64_t IdleMarkNs(uint64_t now) {
  auto own = static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - c.start_cpu);
  auto share =
      static_cast<int64_t>((now - c.start_wall) * static_cast<uint64_t>(c.config.procs) / 4);
  return own > share ? own - share : 0;
}

void EndCycle(uint64_t live_at_start, uint64_t goal) {
  const CycleTimes& t = c.cycle.times();
  uint64_t marked = c.cycle.counts().marked_bytes + c.assist_marked + t.black_bytes;
  uint64_t now = plat::NowNs();
  CycleEnd end;
  end.now = static_cast<int64_t>(now);
  end.heap_live = t.live_at_end;
  end.marked = marked;
  end.work = WorkDone();
  end.assist_ns = static_cast<int64_t>(c.assist_ns);
  end.idle_ns = IdleMarkNs(now);
  end.procs = c.config.procs;
  PacerEndTrace pt;
  pt.expected_work = c.pacer.ExpectedWork();
  pt.triggered = live_at_start;
  pt.cons_mark = c.pacer.cons_mark();
  bool measured = c.pacer.EndCycle(end, Sizes());
  c.pacer.Commit(LiveBytes(), false);
  uint64_t pause = t.stopped_ns;
  c.stats.cycles++;
  if (c.forced) c.stats.forced_cycles++;
  c.stats.pause_total_ns += pause;
  c.stats.max_pause_ns = Max(c.stats.max_pause_ns, Max(t.stop1_ns, t.stop2_ns));
  c.stats.marked = marked;
  c.gc_cpu_ns += plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - c.start_cpu + c.assist_ns + t.copy_ns;
  uint64_t possible = (now - c.process_start_ns) * static_cast<uint64_t>(c.config.procs);
  c.stats.cpu_fraction = static_cast<double>(c.gc_cpu_ns) / static_cast<double>(possible);
  if (c.config.pacer_trace && measured) {
    pt.utilization = c.pacer.last_utilization();
    pt.work = end.work;
    pt.heap_live = t.live_at_end;
    pt.goal = goal;
    char text[kTraceLineSize];
    Fmt out(text, sizeof text);
    FormatPacerEnd(pt, &out);
    plat::LogWrite(out.text(), out.length());
  }
  if (c.config.trace) Trace(t, live_at_start, goal, marked);
}

// For undergo audit.
void CountCycle(bool done, uint64_t condemned_before) {
  AuditCounters* a = Audit();
  if (a == nullptr || c.exiting) return;
  FetchAddRelaxed(done ? &a->cycles : &a->abandoned, 1u);
  uint64_t condemned = LoadRelaxed(&heap::sweep_counts.condemned_objects);
  if (done && condemned > condemned_before) {
    FetchAddRelaxed(&a->poisoned, static_cast<uint32_t>(condemned - condemned_before));
  }
}

void AfterFailure() {
  c.stats.abandoned_cycles++;
  if (c.config.trace) Say("cycle abandoned: ", c.cycle.reason());
  if (c.cycle.hopeless()) return LatchOff(c.cycle.reason());
  // The next attempt after a good part more, each time a larger one.
  uint64_t live = LiveBytes();
  StoreRelaxed(&c.trigger, live + Max(live / 8, (4 * kMiB) << Min(c.failures, 6)));
  c.failures++;
}

// In the trace, when it is another than before.
void SayFacility() {
  Facility f = c.cycle.facility();
  if (f == c.told) return;
  c.told = f;
  if (!c.config.trace) return;
  char line[256];
  Fmt out(line, sizeof line);
  out.Str("undergo: writes are noticed by ").Str(FacilityName(f)).Str(" now");
  const char* why = c.cycle.change_reason();
  if (why[0] != '\0') out.Str(": ").Str(why);
  out.Char('\n');
  plat::LogWrite(out.text(), out.length());
}

// A program that leaves much to the collector leaks. Once is enough: what stale words keep alive is
// not found as garbage any more.
void NoticeLeaks() {
  uint64_t garbage = LoadRelaxed(&heap::sweep_counts.garbage_bytes);
  if (garbage >= Max(LiveBytes() / 8, 512 * kKiB)) StoreRelaxed(&heap::gc_heap.leaky, true);
}

void RunCycle(uint32_t why) {
  StoreRelaxed(&c.busy, 1u);
  // A child forked in the middle of a sweep: what is unswept must not see marks of a new cycle.
  if (LoadRelaxed(&heap::gc_heap.unswept)) SweepAll();
  PrepareAssistants();
  uint64_t live = LiveBytes();
  BeginCycle(why, live);
  uint64_t goal = c.pacer.Goal(Sizes());
  Facility first = c.config.stop_the_world != 0 ? Facility::kStopped : c.config.first_facility;
  bool done = c.cycle.Run(first, c.config.procs, Throttle) == Outcome::kDone;
  SayFacility();
  c.last_failed = !done;
  uint64_t condemned = LoadRelaxed(&heap::sweep_counts.condemned_objects);
  if (done) {
    c.failures = 0;
    // Marked by assists: the flip counted the coordinator's own only.
    FetchAddRelaxed(&heap::gc_heap.live_bytes, c.assist_marked);
    EndCycle(live, goal);
    PrepareSweep();
    SweepByMode();
    NoticeLeaks();
    c.pacer.Commit(LiveBytes(), true);
    UpdateTrigger();
    SetScavengerGoals();
    TraceScavenger();
    if (heap::gc_heap.no_probation) heap::mheap.PurgeAll();
    if (c.config.mode == heap::ReclaimMode::kReport && !c.exiting) {
      ReportGarbage(kSitesPerCycle, false);
    }
  } else {
    AfterFailure();
  }
  CountCycle(done, condemned);
  auto end = static_cast<int64_t>(plat::NowNs());
  c.limiter.StartTransition(false, end, c.stats.cycles);
  c.limiter.FinishTransition(end);
  StoreRelaxed(&c.last_gc_ns, plat::NowNs());
  c.stats.last_end_ns = plat::NowNs(CLOCK_REALTIME);
  if (done) pauses.cycles.Set(c.stats.cycles, c.cycle.times().stopped_ns, c.stats.last_end_ns);
  StoreRelaxed(&c.busy, 0u);
  FetchAddAcqRel(&c.finished, 1u);  // pairs: Collect
  plat::FutexWake(&c.finished, INT32_MAX);
  OnBlack();
}

// Free memory goes back although the program may not call the heap for a while.
void WorkWhileIdle(uint64_t* idle_since) {
  uint64_t now = plat::NowNs();
  int64_t sleep = c.scavenger.Burst(now);
  if (sleep == 0) {
    plat::FutexWaitFor(&c.requests, kNone, kIdleTickNs);
  } else {
    plat::FutexWaitFor(&c.requests, kNone, static_cast<uint64_t>(sleep));
    c.scavenger.Slept(plat::NowNs());
    *idle_since = now;
  }
  heap::BusyScope busy;
  heap::mheap.Tick();
}

void CoordinatorMain(void*) {
  world::StartTracking();
  uint64_t idle_since = plat::NowNs();
  for (;;) {
    uint32_t why = ExchangeAcqRel(&c.requests, uint32_t{kNone});  // pairs: RequestCycle
    if (why != kNone) {
      bool on = LoadRelaxed(&c.on) != 0;
      if (on && why == kWakeUp) {
        c.cycle.YieldUserfaultfd();
      } else if (on) {
        RunCycle(why);
      } else {
        FetchAddAcqRel(&c.finished, 1u);  // pairs: Collect
        plat::FutexWake(&c.finished, INT32_MAX);
      }
      idle_since = plat::NowNs();
      continue;
    }
    if (LoadRelaxed(&c.on) == 0 || plat::NowNs() - idle_since > kIdleExitNs) {
      c.cycle.StopGang();
      StoreRelease(&c.running, 0u);  // pairs: RequestCycle
      uint32_t none = 0;
      // A request that came in between has seen us alive.
      if (LoadAcquire(&c.requests) == kNone || !CasAcqRel(&c.running, &none, 1u)) return;
      continue;
    }
    WorkWhileIdle(&idle_since);
  }
}

void ReportViolation(const heap::HiddenUse& use) {
  if (Audit() != nullptr) FetchAddRelaxed(&Audit()->uses, 1u);
  // Every site a few times, then it is only counted.
  if (use.site != heap::kNoSite &&
      FetchAddRelaxed(&heap::SiteById(use.site)->uses, 1u) >= kLinesPerSite) {
    return;
  }
  char line[2048];
  Fmt out(line, sizeof line - 1);
  out.Str("undergo: object ").Hex(use.object).Str(" of ").Dec(use.size).Str(" bytes ");
  out.Str(use.what).Str(" although nothing pointed to it");
  if (use.by != nullptr) plat::DescribeBacktrace(use.by, use.frames, &out.Str(", by "));
  if (heap::sites_on) heap::DescribeSite(use.site, &out.Str("; it is from "));
  if (c.config.mode == heap::ReclaimMode::kReclaim) {
    out.Str(
        ": objects of this size are no longer collected; undergo audit tells where they are from");
  }
  out.Char('\n');
  plat::LogWrite(out.text(), out.length());
}

// At the end of the program, if something was found.
void SummarizeUses() {
  uint64_t uses = heap::sweep_counts.hidden_frees;
  if (uses == 0 || !heap::sites_on) return;
  char line[2048];
  for (uint32_t id = 1; id < heap::kMaxSites; ++id) {
    uint32_t of_site = LoadRelaxed(&heap::SiteById(id)->uses);
    if (of_site == 0) continue;
    Fmt out(line, sizeof line - 1);
    out.Str("undergo: poison: ").Dec(of_site).Str(" uses of hidden objects from ");
    heap::DescribeSite(id, &out);
    out.Char('\n');
    plat::LogWrite(out.text(), out.length());
  }
}

const char* ModeName(heap::ReclaimMode mode) {
  if (mode == heap::ReclaimMode::kReclaim) return "on";
  if (mode == heap::ReclaimMode::kQuarantine) return "quarantine";
  return mode == heap::ReclaimMode::kReport ? "report" : "poison";
}

void SayStart(const char* kernel) {
  bool stop = c.config.stop_the_world != 0;
  c.told = c.cycle.Probe(stop ? Facility::kStopped : c.config.first_facility);
  char line[256];
  Fmt out(line, sizeof line);
  out.Str("undergo: collector ").Str(ModeName(c.config.mode)).Str(": writes are noticed by ");
  out.Str(FacilityName(c.told));
  if (c.cycle.change_reason()[0] != '\0') out.Str(" (").Str(c.cycle.change_reason()).Str(")");
  out.Str(", scan kernel ").Str(kernel).Str(", ");
  out.Dec(static_cast<uint64_t>(c.config.procs)).Str(" procs\n");
  plat::LogWrite(out.text(), out.length());
}

}  // namespace

void ReportAtExit() {
  if (!IsOn()) return;
  c.exiting = true;
  if (c.config.mode == heap::ReclaimMode::kReport) {
    Collect();
    ReportGarbage(kSitesAtExit, true);
  } else if (c.config.mode == heap::ReclaimMode::kPoison) {
    // Bytes that were changed since the last cycle.
    if (Audit() != nullptr) Collect();
    SummarizeUses();
  }
}

void Start(const Config& config) {
  c.config = config;
  c.process_start_ns = plat::NowNs();
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
  c.pacer.Init(config.percent, config.memory_limit);
  c.scavenger.Start(config.procs);
  c.limiter.SetProcs(config.procs, static_cast<int64_t>(c.process_start_ns));
  const char* kernel;
  ChooseScanKernel(&kernel);
  uint64_t guard;
  asm("movq %%fs:0x30, %0" : "=r"(guard));
  c.cycle.SetGuard(guard);
  c.cycle.SetCheckMark(config.check_mark);
  c.cycle.SetBlackHook(OnBlack);
  UpdateTrigger();
  world::EnablePublishing();
  StoreRelease(&c.on, 1u);
  if (config.trace) SayStart(kernel);
}

void LatchOff(const char* why) {
  if (ExchangeAcqRel(&c.on, 0u) == 0) return;  // pairs: OnAllocation
  Say("no more collections: ", why);
  heap::StopQuarantine();
}

bool IsOn() { return LoadAcquire(&c.on) != 0; }  // pairs: Start

namespace {

bool CollectOnce() {
  // A cycle that runs already may have missed what the caller dropped.
  uint32_t from = LoadAcquire(&c.finished);  // pairs: RunCycle
  uint32_t target = from + (LoadRelaxed(&c.busy) != 0 ? 2 : 1);
  // Once: each stop interrupts the wait below, and a second request would be a second cycle.
  RequestCycle(kForced);
  for (;;) {
    uint32_t now = LoadAcquire(&c.finished);  // pairs: RunCycle
    if (static_cast<int32_t>(now - target) >= 0) return c.last_failed == 0;
    plat::FutexWait(&c.finished, now);
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
  int32_t old = c.pacer.percent();
  c.pacer.SetPercent(percent);
  if (LoadRelaxed(&c.busy) == 0) c.pacer.Commit(LiveBytes(), true);
  UpdateTrigger();
  return old;
}

int64_t SetMemoryLimit(int64_t bytes) {
  int64_t old = c.pacer.memory_limit();
  if (bytes < 0) return old;
  c.config.memory_limit = bytes;
  c.pacer.SetMemoryLimit(bytes);
  SetScavengerGoals();
  UpdateTrigger();
  return old;
}

bool AddRoots(Addr from, Addr to) { return c.cycle.AddRoots(from, to); }

void ReadStats(CollectorStats* out) {
  *out = c.stats;
  out->live = LiveBytes();
  out->trigger = LoadRelaxed(&c.trigger);
  out->goal = c.pacer.Goal(Sizes());
  out->enabled = LoadRelaxed(&c.on) != 0;
  out->memory = c.cycle.MemorySize();
  if (c.stats.cycles != 0) {
    out->memory += (HeapNow().committed_bytes >> heap::kSliceShift) * heap::kMarkStride;
  }
  if (LoadAcquire(&c.assistants) != nullptr) {  // pairs: PrepareAssistants
    out->memory += kAssistants * sizeof(Marker);
  }
  out->sweep = heap::sweep_counts;
}

namespace {

void WaitForRunningCycle() {
  uint32_t finished = LoadAcquire(&c.finished);  // pairs: RunCycle
  for (;;) {
    bool runs = LoadAcquire(&c.busy) != 0;                      // pairs: RunCycle
    if (!runs || LoadAcquire(&c.finished) != finished) return;  // pairs: RunCycle
    plat::FutexWait(&c.finished, finished);
  }
}

}  // namespace

void BeforeUserfaultfd() {
  c.cycle.BeginUserfaultfd();
  WaitForRunningCycle();
  // The heap stays registered between cycles.
  for (int i = 0; i < kYieldTries && c.cycle.HoldsUserfaultfd() && IsOn(); ++i) {
    RequestCycle(kWakeUp);
    plat::NapNs(kNapNs);
  }
}

void BeforeFilter(const FilterVerdict& verdict) {
  if (LoadRelaxed(&c.on) == 0) return;
  c.cycle.Restrict(verdict);
  if (!verdict.deadly) {
    if (verdict.no_uffd || verdict.no_snapshot) WaitForRunningCycle();
    return;
  }
  // Most such programs never collect: only who asked for traces is told.
  if (c.config.trace) {
    LatchOff("a filter of system calls would kill the process");
  } else {
    StoreRelease(&c.on, 0u);  // pairs: OnAllocation
  }
  // The threads of ours must be gone before the filter is there.
  FetchOrAcqRel(&c.requests, uint32_t{kWakeUp});  // pairs: CoordinatorMain
  plat::FutexWake(&c.requests, 1);
  while (LoadAcquire(&c.running) != 0) plat::NapNs(kNapNs);  // pairs: CoordinatorMain
  plat::NapNs(kNapNs);                                       // its last instructions
}

void AfterUserfaultfd() { c.cycle.EndUserfaultfd(); }

bool BeforeExec() {
  // No cycle, no copy.
  if (LoadRelaxed(&c.on) == 0 || world::WhoseMemory() != world::Whose::kOurs) return false;
  c.cycle.BeginExec();
  return true;
}

void AfterExec() { c.cycle.EndExec(); }

void CheckTimer(uint64_t now) {
  if (LoadRelaxed(&c.on) == 0 || LoadRelaxed(&c.busy) != 0) return;
  auto last = static_cast<int64_t>(LoadRelaxed(&c.last_gc_ns));
  if (c.pacer.TimedGcDue(static_cast<int64_t>(now), last)) RequestCycle(kTimed);
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
  c.running = c.requests = c.busy = 0;
  c.free_assistants = LowMask(kAssistants);
  c.cycle.AfterForkInChild();
  if (!heap::gc_heap.unswept) return;
  heap::ForEachSpan([](heap::Span* s) { heap::KeepHalfSwept(s); });
}

}  // namespace undergo::gc
