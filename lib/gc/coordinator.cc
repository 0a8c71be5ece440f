// SPDX-License-Identifier: Apache-2.0
// The coordinator: a thread of ours that glibc does not know. The first request makes it, and it
// ends when it had nothing to do for a while, so a program that needs no collection never sees it.
// It runs the cycles (gc.cc), sweeps, paces, and gives free memory back.
//
// It marks a quarter of the CPU time of GOMAXPROCS CPUs, and beyond that what CPUs have idle: the
// process' CPU time tells. A forced cycle takes what it gets.
#include "gc/audit.h"
#include "gc/collector_state.h"
#include "gc/pauses.h"
#include "gc/report.h"
#include "gc/trace.h"
#include "heap/mheap.h"
#include "heap/thread_words.h"
#include "heap/walk.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/log.h"
#include "world/world.h"

namespace undergo::gc {

namespace {

constexpr uint64_t kIdleExitNs = 5'000'000'000;  // without a request
constexpr uint64_t kIdleTickNs = 100'000'000;    // between looks at the page heap meanwhile
constexpr uint64_t kRetryNs = 1'000'000'000;     // after a cycle that was given up; doubles
constexpr uint32_t kMaxRetryShift = 6;
constexpr uint64_t kSweepStopNs = 10'000'000;  // gcstoptheworld=2: for the answers
constexpr uint32_t kSitesPerCycle = 5;         // in leak reports
constexpr uint64_t kSparePart = 16;            // of the memory, for cycles that are put off
constexpr uint64_t kFreedPart = 8;  // of the way to the trigger, to be free again without a cycle

using heap::LiveBytes;

ScanWork WorkDone() {
  ScanWork w;
  w.heap = collector.cycle.counts().scanned_bytes + LoadRelaxed(&collector.assist_scanned);
  w.globals = collector.cycle.counts().root_bytes;
  return w;
}

// CPUs that nobody used, and what the coordinator took of them, are neither party's time.
void UpdateLimiter(uint64_t now) {
  uint64_t wall = now - collector.limiter_wall;
  uint64_t all = plat::NowNs(CLOCK_PROCESS_CPUTIME_ID);
  auto possible = static_cast<int64_t>(wall * static_cast<uint64_t>(collector.config.procs));
  auto used = static_cast<int64_t>(all - collector.limiter_cpu);
  if (possible > used) collector.limiter.AddIdle(possible - used);
  collector.limiter_wall = now;
  collector.limiter_cpu = all;
  collector.limiter.Update(static_cast<int64_t>(now));
}

void Throttle() {
  uint64_t scanned = collector.cycle.counts().scanned_bytes;
  FetchAddRelaxed(&collector.credit, static_cast<int64_t>(scanned - collector.credited));
  collector.credited = scanned;
  MemorySizes sizes = Sizes();
  collector.pacer.Revise(LiveBytes(), WorkDone(), sizes);
  StoreRelaxed(&collector.cycle_goal, collector.pacer.Goal(sizes));
  FetchAddAcqRel(&collector.portion, 1u);  // pairs: Assist
  if (LoadAcquire(&collector.waiting) != 0)
    plat::FutexWake(&collector.portion, INT32_MAX);  // pairs: Assist
  uint64_t now = plat::NowNs();
  if (collector.limiter.NeedsUpdate(static_cast<int64_t>(now))) UpdateLimiter(now);
  if (collector.forced) return;
  uint64_t wall = now - collector.start_wall;
  uint64_t own = plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - collector.start_cpu;
  uint64_t all = plat::NowNs(CLOCK_PROCESS_CPUTIME_ID) - collector.start_process_cpu;
  auto procs = static_cast<uint64_t>(collector.config.procs);
  // The program leaves (most of) a CPU unused.
  bool idle = (all - own) * 10 < wall * (procs * 10 - 8);
  if (idle || own * 4 <= wall * procs) return;
  collector.cycle.Share();
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
  if (collector.config.stop_the_world < 2) return SweepAll();
  uint64_t began = plat::NowNs();
  bool stopped = world::StopTheWorld(kSweepStopNs) == world::StopResult::kStopped;
  pauses.stopping.Add(plat::NowNs() - began);
  SweepAll();
  if (!stopped) return;
  pauses.total.Add(plat::NowNs() - began);
  world::StartTheWorld();
}

void PrepareSweep() {
  uint64_t goal = collector.pacer.Goal(Sizes());
  uint64_t budget = goal == kNoGoal ? LiveBytes() / 16 : goal / 32;
  uint64_t waiting = LoadRelaxed(&heap::sweep_counts.condemned_bytes);
  heap::gc_heap.now_ms = static_cast<uint32_t>(plat::NowNs() / 1'000'000);
  int64_t left = static_cast<int64_t>(Max(budget, kMiB)) - static_cast<int64_t>(waiting);
  StoreRelaxed(&heap::gc_heap.probation_left, left);
  heap::gc_heap.no_probation =
      collector.config.memory_limit != INT64_MAX &&
      Sizes().mapped_ready > static_cast<uint64_t>(collector.config.memory_limit / 8 * 7);
  heap::sweep_counts.garbage_objects = heap::sweep_counts.garbage_bytes = 0;
}

void BeginCycle(uint32_t why, uint64_t live) {
  collector.forced = (why & kForced) != 0 || collector.config.stress;
  collector.credit = 0;
  collector.credited = 0;
  collector.assist_marked = collector.assist_scanned = 0;
  collector.assist_ns = collector.assist_wait_ns = 0;
  collector.start_wall = plat::NowNs();
  collector.start_cpu = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  collector.start_process_cpu = plat::NowNs(CLOCK_PROCESS_CPUTIME_ID);
  collector.limiter_wall = collector.start_wall;
  collector.limiter_cpu = collector.start_process_cpu;
  collector.limiter.StartTransition(true, static_cast<int64_t>(collector.start_wall),
                                    collector.stats.cycles + 1);
  collector.limiter.FinishTransition(static_cast<int64_t>(collector.start_wall));
  if ((why & kTimed) != 0 && collector.config.trace)
    plat::LogWrite(kTimedGcLine, sizeof kTimedGcLine - 1);
  CycleStart start;
  start.now = static_cast<int64_t>(collector.start_wall);
  start.heap_live = start.heap_scan = live;
  start.globals = collector.cycle.times().globals_bytes;
  start.max_stack = collector.cycle.times().stack_bytes;
  start.procs = collector.config.procs;
  start.timed = (why & kTimed) != 0;
  MemorySizes sizes = Sizes();
  collector.pacer.StartCycle(start, sizes);
  StoreRelaxed(&collector.cycle_goal, collector.pacer.Goal(sizes));
  TracePacerStart();
}

// What the coordinator took beyond its quarter, from CPUs that were idle.
int64_t IdleMarkNs(uint64_t now) {
  auto own = static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - collector.start_cpu);
  auto share = static_cast<int64_t>((now - collector.start_wall) *
                                    static_cast<uint64_t>(collector.config.procs) / 4);
  return own > share ? own - share : 0;
}

void EndCycle(uint64_t live_at_start, uint64_t goal) {
  const CycleTimes& t = collector.cycle.times();
  uint64_t marked = collector.cycle.counts().marked_bytes + collector.assist_marked + t.black_bytes;
  uint64_t now = plat::NowNs();
  CycleEnd end;
  end.now = static_cast<int64_t>(now);
  end.heap_live = t.live_at_end;
  end.marked = marked;
  end.work = WorkDone();
  end.globals = collector.cycle.times().globals_bytes;
  end.assist_ns = static_cast<int64_t>(collector.assist_ns);
  end.wait_ns = static_cast<int64_t>(collector.assist_wait_ns);
  end.idle_ns = IdleMarkNs(now);
  uint64_t cpu =
      plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - collector.start_cpu + collector.assist_ns + t.copy_ns;
  end.cpu_ns = static_cast<int64_t>(cpu);
  end.procs = collector.config.procs;
  PacerEndTrace pt;
  pt.expected_work = collector.pacer.ExpectedWork();
  pt.triggered = live_at_start;
  pt.cons_mark = collector.pacer.cons_mark();
  bool measured = collector.pacer.EndCycle(end, Sizes());
  collector.pacer.Commit(LiveBytes(), false);
  collector.scavenger.NoteMarkEnd();
  uint64_t pause = t.stopped_ns;
  collector.stats.cycles++;
  if (collector.forced) collector.stats.forced_cycles++;
  collector.stats.pause_total_ns += pause;
  collector.stats.max_pause_ns = Max(collector.stats.max_pause_ns, Max(t.stop1_ns, t.stop2_ns));
  collector.stats.marked = marked;
  collector.gc_cpu_ns += cpu;
  uint64_t possible =
      (now - collector.process_start_ns) * static_cast<uint64_t>(collector.config.procs);
  collector.stats.cpu_fraction =
      static_cast<double>(collector.gc_cpu_ns) / static_cast<double>(possible);
  if (collector.config.pacer_trace && measured) {
    pt.utilization = collector.pacer.last_utilization();
    pt.work = end.work;
    pt.heap_live = t.live_at_end;
    pt.goal = goal;
    TracePacerEnd(pt);
  }
  if (collector.config.trace) TraceCycle(t, live_at_start, goal, marked);
}

// For undergo audit.
void CountCycle(bool done, uint64_t condemned_before) {
  AuditCounters* a = Audit();
  if (a == nullptr || collector.exiting) return;
  FetchAddRelaxed(done ? &a->cycles : &a->abandoned, 1u);
  uint64_t condemned = LoadRelaxed(&heap::sweep_counts.condemned_objects);
  if (done && condemned > condemned_before) {
    FetchAddRelaxed(&a->poisoned, static_cast<uint32_t>(condemned - condemned_before));
  }
}

void AfterFailure() {
  collector.stats.abandoned_cycles++;
  if (collector.config.trace) Say("cycle abandoned: ", collector.cycle.reason());
  if (collector.cycle.hopeless()) return LatchOff(collector.cycle.reason());
  // The next attempt after a good part more, each time a larger one, or by the clock.
  uint64_t live = LiveBytes();
  StoreRelaxed(&collector.trigger, live + Max(live / 8, (4 * kMiB) << Min(collector.failures, 6)));
  collector.retry_ns = plat::NowNs() + (kRetryNs << Min(collector.failures, kMaxRetryShift));
  collector.failures++;
}

// A program that leaves much to the collector leaks. Once is enough: what stale words keep alive is
// not found as garbage any more.
void NoticeLeaks() {
  uint64_t garbage = LoadRelaxed(&heap::sweep_counts.garbage_bytes);
  if (garbage >= Max(LiveBytes() / 8, 512 * kKiB)) StoreRelaxed(&heap::gc_heap.leaky, true);
}

void RunCycle(uint32_t why) {
  StoreRelaxed(&collector.busy, 1u);
  // A child forked in the middle of a sweep: what is unswept must not see marks of a new cycle.
  if (LoadRelaxed(&heap::gc_heap.unswept)) SweepAll();
  PrepareAssistants();
  uint64_t live = LiveBytes();
  BeginCycle(why, live);
  uint64_t goal = collector.pacer.Goal(Sizes());
  Facility first =
      collector.config.stop_the_world != 0 ? Facility::kStopped : collector.config.first_facility;
  collector.cycle.SetQuiet(collector.stats.cycles == 0 || collector.pacer.quiet());
  bool done = collector.cycle.Run(first, collector.config.procs, Throttle) == Outcome::kDone;
  SayFacility();
  collector.last_failed = !done;
  uint64_t condemned = LoadRelaxed(&heap::sweep_counts.condemned_objects);
  if (done) {
    collector.failures = 0;
    collector.retry_ns = 0;
    // Marked by assists: the flip counted the coordinator's own only.
    FetchAddRelaxed(&heap::gc_heap.live_bytes, collector.assist_marked);
    EndCycle(live, goal);
    StoreRelaxed(&collector.cycle_goal, collector.pacer.Goal(Sizes()));  // who allocates meanwhile
    PrepareSweep();
    SweepByMode();
    collector.pacer.NoteGarbage(LoadRelaxed(&heap::sweep_counts.garbage_bytes));
    NoticeLeaks();
    collector.pacer.Commit(LiveBytes(), true);
    UpdateTrigger();
    SetScavengerGoals();
    TraceScavenger();
    if (heap::gc_heap.no_probation) heap::mheap.PurgeAll();
    if (collector.config.mode == heap::ReclaimMode::kReport && !collector.exiting) {
      ReportGarbage(kSitesPerCycle, false);
    }
  } else {
    AfterFailure();
  }
  CountCycle(done, condemned);
  auto end = static_cast<int64_t>(plat::NowNs());
  collector.limiter.StartTransition(false, end, collector.stats.cycles);
  collector.limiter.FinishTransition(end);
  StoreRelaxed(&collector.last_gc_ns, plat::NowNs());
  collector.stats.last_end_ns = plat::NowNs(CLOCK_REALTIME);
  if (done) {
    pauses.cycles.Set(collector.stats.cycles, collector.cycle.times().stopped_ns,
                      collector.stats.last_end_ns);
  }
  StoreRelaxed(&collector.busy, 0u);
  FetchAddAcqRel(&collector.finished, 1u);  // pairs: Collect
  plat::FutexWake(&collector.finished, INT32_MAX);
  OnBlack();
}

// The heap has come to its trigger, and turns out to be smaller: what the program freed since the
// last cycle counts until somebody looks. Looking costs a hundredth of a cycle. So that it is not
// done again and again, a good part of the way to the trigger must be free.
bool FreesMadeRoom() {
  heap::ForEachSpan([](heap::Span* s) { heap::UncountFreed(s); });
  uint64_t trigger = LoadRelaxed(&collector.trigger), marked = collector.pacer.heap_marked();
  uint64_t room = trigger > marked ? trigger - marked : 0;
  return LiveBytes() + room / kFreedPart <= trigger;
}

bool IsPutOff() {
  if (!collector.pacer.quiet()) return false;
  if (collector.spare == 0) collector.spare = collector.config.memory() / kSparePart;
  uint64_t since = plat::NowNs() - collector.last_gc_ns;
  if (!collector.pacer.PutOff(LiveBytes(), static_cast<int64_t>(since), collector.spare)) {
    return false;
  }
  UpdateTrigger();
  SetScavengerGoals();
  return true;
}

// Nothing but the size of the heap asks for a cycle, and the pacer can do without.
bool CanWait(uint32_t why) {
  if (why != kHeap || collector.config.stress || LoadRelaxed(&heap::gc_heap.unswept)) return false;
  if (collector.pacer.GoalIsLimit(Sizes())) return false;
  return IsPutOff() || FreesMadeRoom();
}

// A cycle that was given up is done later, also if the program does not ask again.
bool RetryIsDue() {
  if (collector.retry_ns == 0 || plat::NowNs() < collector.retry_ns) return false;
  collector.retry_ns = 0;
  return collector.config.percent >= 0 || collector.config.memory_limit != INT64_MAX;
}

// Free memory goes back although the program may not call the heap for a while.
void WorkWhileIdle(uint64_t* idle_since) {
  uint64_t now = plat::NowNs();
  int64_t sleep = collector.scavenger.Burst(now);
  if (sleep == 0) {
    plat::FutexWaitFor(&collector.requests, kNone, kIdleTickNs);
  } else {
    plat::FutexWaitFor(&collector.requests, kNone, static_cast<uint64_t>(sleep));
    collector.scavenger.Slept(plat::NowNs());
    *idle_since = now;
  }
  heap::BusyScope busy;
  heap::mheap.Tick();
}

}  // namespace

void OnBlack() {
  FetchAddAcqRel(&collector.begun, 1u);  // pairs: OnAllocation
  plat::FutexWake(&collector.begun, INT32_MAX);
}

void CoordinatorMain(void*) {
  world::StartTracking();
  uint64_t idle_since = plat::NowNs();
  for (;;) {
    uint32_t why = ExchangeAcqRel(&collector.requests, uint32_t{kNone});  // pairs: RequestCycle
    if (why != kNone) {
      bool on = LoadRelaxed(&collector.on) != 0;
      if (on && why == kWakeUp) {
        collector.cycle.YieldUserfaultfd();
      } else if (on && CanWait(why)) {
        OnBlack();  // who waits for the beginning of a cycle goes on
      } else if (on) {
        RunCycle(why);
      } else {
        FetchAddAcqRel(&collector.finished, 1u);  // pairs: Collect
        plat::FutexWake(&collector.finished, INT32_MAX);
      }
      idle_since = plat::NowNs();
      continue;
    }
    if (LoadRelaxed(&collector.on) != 0 && RetryIsDue()) {
      FetchOrAcqRel(&collector.requests, uint32_t{kRetry});  // pairs: the exchange above
      continue;
    }
    bool idle = collector.retry_ns == 0 && plat::NowNs() - idle_since > kIdleExitNs;
    if (LoadRelaxed(&collector.on) == 0 || idle) {
      collector.cycle.StopGang();
      StoreRelease(&collector.running, 0u);  // pairs: RequestCycle
      uint32_t none = 0;
      // A request that came in between has seen us alive.
      if (LoadAcquire(&collector.requests) == kNone || !CasAcqRel(&collector.running, &none, 1u))
        return;
      continue;
    }
    WorkWhileIdle(&idle_since);
  }
}

}  // namespace undergo::gc
