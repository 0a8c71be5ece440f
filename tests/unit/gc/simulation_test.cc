// SPDX-License-Identifier: Apache-2.0
// The pacer and the limiter over a simulated program, in steps of 20 us: CPUs, an allocation rate,
// a scan rate, a live set that changes. Nothing here measures real time.

#include <criterion/criterion.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "gc/limiter.h"
#include "gc/pacer.h"

using namespace undergo;
using namespace undergo::gc;

namespace {

constexpr double kMega = static_cast<double>(kMiB);

struct CycleRecord {
  double triggered, end, goal, marked;
  double assist_share;  // of the CPU time of the cycle
  double start_s, end_s;
};

// Rates are bytes per ns of one CPU: 1 is about 1 GB/s.
struct Program {
  int procs = 4;
  int64_t step = 20'000;
  double scan_rate = 1.0;
  double stacks = 0.1 * kMega, globals = 1 * kMega;
  double overhead = 3 * kMega;                                             // tables, queues
  std::function<double(double)> live = [](double) { return 50 * kMega; };  // of seconds
  std::function<double(double)> alloc_rate = [](double) { return 0.1; };   // of seconds
};

class Simulation {
 public:
  Simulation(const Program& program, int32_t percent, int64_t limit) : program_(program) {
    pacer_.Init(percent, limit);
    limiter_.SetProcs(program.procs, 0);
  }

  void RunFor(double seconds) {
    int64_t until = now_ + static_cast<int64_t>(seconds * 1e9);
    while (now_ < until) Step();
  }

  Pacer& pacer() { return pacer_; }
  const std::vector<CycleRecord>& cycles() const { return cycles_; }
  double peak() const { return peak_; }
  void ForgetPeak() { peak_ = 0; }
  double heap_live() const { return live_; }
  double gc_share() const { return gc_ns_ / (static_cast<double>(now_) * program_.procs); }
  double allocated() const { return allocated_; }
  bool was_limited() const { return limiter_.last_limited_cycle() != 0; }

 private:
  double Seconds() const { return static_cast<double>(now_) / 1e9; }

  // The whole heap is objects; what was once mapped stays, as free memory.
  MemorySizes Sizes() const {
    double heap = std::min(std::max(peak_heap_, live_), HeapRoom());
    heap = std::max(heap, live_);
    return {static_cast<uint64_t>(heap + program_.overhead), static_cast<uint64_t>(heap - live_),
            static_cast<uint64_t>(live_)};
  }
  // The scavenger keeps the heap below the limit.
  double HeapRoom() const { return static_cast<double>(pacer_.memory_limit()) - program_.overhead; }

  void Step() {
    now_ += program_.step;
    double cpu = static_cast<double>(program_.step) * program_.procs;
    double rate = program_.alloc_rate(Seconds());
    if (!marking_) {
      Allocate(cpu * rate);
      bool due = live_ >= static_cast<double>(pacer_.Trigger(Sizes()));
      if (due && !pacer_.PutOff(static_cast<uint64_t>(live_), now_ - last_end_, UINT64_MAX))
        Start();
    } else {
      MarkStep(cpu, rate);
    }
    // As real assists do, which report their time when they end.
    if (assisted_ || limiter_.NeedsUpdate(now_)) limiter_.Update(now_);
    assisted_ = false;
  }

  void Allocate(double bytes) {
    live_ += bytes;
    allocated_ += bytes;
    peak_ = std::max(peak_, live_);
    peak_heap_ = std::max(peak_heap_, live_);
  }

  void Start() {
    marking_ = true;
    limiter_.StartTransition(true, now_, cycles_.size() + 1);
    limiter_.FinishTransition(now_);
    mark_start_ = now_;
    triggered_ = live_;
    work_ = assist_ns_ = cycle_ns_ = credit_ = 0;
    // What is live now must be scanned; what comes later is black.
    to_scan_ = std::min(program_.live(Seconds()), live_) + program_.stacks + program_.globals;
    survivors_ = std::min(program_.live(Seconds()), live_);
    pacer_.StartCycle({.now = now_,
                       .heap_live = static_cast<uint64_t>(live_),
                       .heap_scan = static_cast<uint64_t>(live_),
                       .max_stack = static_cast<uint64_t>(program_.stacks),
                       .globals = static_cast<uint64_t>(program_.globals),
                       .procs = program_.procs},
                      Sizes());
  }

  ScanWork Work() const {
    double rest = work_ - program_.stacks - program_.globals;
    if (rest < 0) return {0, 0, static_cast<uint64_t>(work_)};
    return {static_cast<uint64_t>(rest), static_cast<uint64_t>(program_.stacks),
            static_cast<uint64_t>(program_.globals)};
  }

  void MarkStep(double cpu, double rate) {
    double background = cpu * kBackgroundUtilization;
    double scanned = background * program_.scan_rate;
    work_ += scanned;
    credit_ += scanned;
    double mutator = cpu - background;
    double bytes = mutator * rate;
    double assist = 0;
    if (!limiter_.Limiting()) {
      // Of each byte's debt the credit pays what there is.
      double debt = bytes * pacer_.AssistWorkPerByte();
      double stolen = std::min(credit_, debt);
      credit_ -= stolen;
      // bytes / rate + assist / scan_rate = mutator
      double per_byte = pacer_.AssistWorkPerByte() * (1 - stolen / std::max(debt, 1.0));
      bytes = mutator / (1 / rate + per_byte / program_.scan_rate);
      assist = bytes * per_byte / program_.scan_rate;
    }
    work_ += assist * program_.scan_rate;
    assist_ns_ += assist;
    cycle_ns_ += background + assist;
    gc_ns_ += background + assist;
    limiter_.AddAssist(static_cast<int64_t>(assist));
    assisted_ = assist > 0;
    Allocate(bytes);
    pacer_.Revise(static_cast<uint64_t>(live_), Work(), Sizes());
    if (work_ >= to_scan_) End();
  }

  void End() {
    marking_ = false;
    double marked = survivors_ + live_ - triggered_;
    double duration = static_cast<double>(now_ - mark_start_) * program_.procs;
    CycleRecord r{triggered_,
                  live_,
                  static_cast<double>(pacer_.Goal(Sizes())),
                  marked,
                  assist_ns_ / duration,
                  static_cast<double>(mark_start_) / 1e9,
                  Seconds()};
    cycles_.push_back(r);
    pacer_.EndCycle({.now = now_,
                     .heap_live = static_cast<uint64_t>(live_),
                     .marked = static_cast<uint64_t>(marked),
                     .work = Work(),
                     .globals = static_cast<uint64_t>(program_.globals),
                     .assist_ns = static_cast<int64_t>(assist_ns_),
                     .cpu_ns = static_cast<int64_t>(cycle_ns_),
                     .procs = program_.procs},
                    Sizes());
    limiter_.StartTransition(false, now_, cycles_.size());
    limiter_.FinishTransition(now_);
    pacer_.NoteGarbage(static_cast<uint64_t>(live_ - marked));
    live_ = marked;
    pacer_.Commit(static_cast<uint64_t>(live_), false);
    last_end_ = now_;
  }

  Program program_;
  Pacer pacer_;
  CpuLimiter limiter_;
  int64_t now_ = 0;
  double live_ = 0, peak_ = 0, peak_heap_ = 0, allocated_ = 0, gc_ns_ = 0;
  bool marking_ = false, assisted_ = false;
  int64_t mark_start_ = 0, last_end_ = 0;
  double triggered_ = 0, work_ = 0, to_scan_ = 0, survivors_ = 0, credit_ = 0;
  double assist_ns_ = 0, cycle_ns_ = 0;
  std::vector<CycleRecord> cycles_;
};

const CycleRecord& FromEnd(const Simulation& s, size_t i) {
  return s.cycles().at(s.cycles().size() - 1 - i);
}

void ExpectOnGoal(const Simulation& s, size_t count, double max_assist, const char* what) {
  cr_assert(s.cycles().size() > count, "%s: only %zu cycles", what, s.cycles().size());
  for (size_t i = 0; i < count; i++) {
    const CycleRecord& c = FromEnd(s, i);
    cr_expect(c.end > 0.95 * c.goal && c.end < 1.05 * c.goal, "%s: cycle ends at %.2f, goal %.2f",
              what, c.end / kMega, c.goal / kMega);
    cr_expect(c.assist_share <= max_assist, "%s: assists %.3f", what, c.assist_share);
  }
}

}  // namespace

Test(simulation, steady_state_meets_the_goal) {
  for (int procs : {1, 2, 4, 16}) {
    for (double rate : {0.01, 0.05, 0.1}) {
      for (double live : {20.0, 100.0, 500.0}) {
        Program program;
        program.procs = procs;
        program.alloc_rate = [=](double) { return rate; };
        program.live = [=](double) { return live * kMega; };
        program.step = static_cast<int64_t>(live * kMega / (rate * procs) / 5000);
        Simulation s(program, 100, kNoMemoryLimit);
        // The second cycle may be put off.
        s.RunFor((16 * live + 400) * kMega / (rate * procs) / 1e9);
        ExpectOnGoal(s, 4, 0.02, "steady");
      }
    }
  }
}

// More allocation than a quarter of the CPUs can follow from the earliest trigger: assists make up.
TestSuite(simulation, .timeout = 60);
Test(simulation, heavy_allocation_is_held_by_assists) {
  Program program;
  program.alloc_rate = [](double) { return 1.0; };
  Simulation s(program, 100, kNoMemoryLimit);
  s.RunFor(3);
  ExpectOnGoal(s, 8, 0.75, "heavy");
  cr_expect(FromEnd(s, 0).assist_share > 0.02, "%f", FromEnd(s, 0).assist_share);
}

Test(simulation, gogc_sets_the_peak) {
  for (int32_t percent : {25, 50, 100, 200, 400}) {
    Simulation s(Program{}, percent, kNoMemoryLimit);
    s.RunFor(4);
    const CycleRecord& c = FromEnd(s, 0);
    double wanted = c.marked + (c.marked + 1.1 * kMega) * percent / 100;
    cr_expect(c.goal > 0.98 * wanted && c.goal < 1.02 * wanted, "GOGC=%d: %.1f, wanted %.1f",
              percent, c.goal / kMega, wanted / kMega);
    // Little room between live heap and goal is bought with assists.
    ExpectOnGoal(s, 3, percent < 100 ? 0.4 : 0.02, "gogc");
  }
}

Test(simulation, ramp) {
  Program program;
  program.live = [](double t) { return (20 + 60 * t) * kMega; };
  Simulation s(program, 100, kNoMemoryLimit);
  s.RunFor(6);
  cr_assert(s.cycles().size() > 8);
  for (size_t i = 0; i < 6; i++) {
    const CycleRecord& c = FromEnd(s, i);
    cr_expect(c.end < 1.10 * c.goal, "%.1f of %.1f", c.end / kMega, c.goal / kMega);
    cr_expect(c.assist_share < 0.10, "assists %f", c.assist_share);
  }
}

// The live heap grows tenfold within one period between cycles.
Test(simulation, spike) {
  Program program;
  program.live = [](double t) { return (t < 2 ? 20 : 200) * kMega; };
  Simulation s(program, 100, kNoMemoryLimit);
  s.RunFor(2);
  double goal = FromEnd(s, 0).goal;
  s.ForgetPeak();
  s.RunFor(0.5);
  // All it may do is to move the goal by GOGC, and a tenth.
  cr_expect(s.peak() < 8 * 1.1 * goal, "%f", s.peak() / goal);
  for (const auto& c : s.cycles()) {
    cr_expect(c.end < 2 * 1.1 * c.goal + 4 * kMega, "at %.2f s: %.1f, goal %.1f", c.end_s,
              c.end / kMega, c.goal / kMega);
  }
  s.RunFor(8);
  ExpectOnGoal(s, 3, 0.02, "after the spike");
}

Test(simulation, phases) {
  Program program;
  program.alloc_rate = [](double t) { return static_cast<int>(t / 6) % 2 == 0 ? 0.03 : 0.15; };
  Simulation s(program, 100, kNoMemoryLimit);
  for (int phase = 0; phase < 4; phase++) {
    s.RunFor(5.99);
    ExpectOnGoal(s, 1, 0.02, phase % 2 == 0 ? "slow phase" : "fast phase");
    s.RunFor(0.01);
  }
  // A change costs a cycle or two with assists, not more.
  int with_assists = 0;
  for (const auto& c : s.cycles()) with_assists += c.assist_share > 0.05;
  cr_expect(with_assists <= 6, "%d of %zu cycles", with_assists, s.cycles().size());
}

Test(simulation, limit_alone_collects_only_near_it) {
  Program program;
  auto limit = static_cast<int64_t>(200 * kMega);
  Simulation s(program, -1, limit);
  s.RunFor(0.3);  // about 120 MiB
  cr_expect(s.cycles().empty());
  s.RunFor(5);
  cr_assert(s.cycles().size() > 5);
  // The first cycle does not know what to expect and ends late; the others keep the limit.
  cr_expect(s.peak() + 3 * kMega < 1.05 * static_cast<double>(limit), "%f", s.peak() / kMega);
  s.ForgetPeak();
  s.RunFor(5);
  cr_expect(s.peak() + 3 * kMega < static_cast<double>(limit), "%f", s.peak() / kMega);
  ExpectOnGoal(s, 5, 0.05, "limit");
  cr_expect(!s.was_limited());
}

Test(simulation, limit_below_the_goal_holds) {
  Program program;
  program.live = [](double) { return 70 * kMega; };
  auto limit = static_cast<int64_t>(100 * kMega);
  Simulation s(program, 100, limit);
  s.RunFor(5);
  cr_expect(s.peak() + 3 * kMega < 1.02 * static_cast<double>(limit), "%f", s.peak() / kMega);
  cr_expect(!s.was_limited());
}

// No collection can help: the limiter lets the program run, at half speed or better.
Test(simulation, impossible_limit_is_exceeded) {
  Program program;
  program.procs = 2;
  program.alloc_rate = [](double) { return 0.5; };
  Simulation s(program, 100, static_cast<int64_t>(30 * kMega));
  s.RunFor(30);
  cr_expect(s.was_limited());
  cr_expect(s.gc_share() < 0.55, "%f", s.gc_share());
  double free_run = 30e9 * 2 * 0.5;
  cr_expect(s.allocated() > 0.4 * free_run, "%f", s.allocated() / free_run);
}

Test(simulation, gogc_0_collects_always) {
  Simulation s(Program{}, 0, kNoMemoryLimit);
  s.RunFor(2);
  double marking = 0;
  for (size_t i = 0; i + 1 < s.cycles().size(); i++) {
    marking += s.cycles()[i].end_s - s.cycles()[i].start_s;
  }
  cr_expect(marking > 1.6, "%f of 2 s", marking);
  cr_expect(s.peak() < 50 * kMega * 1.7, "%f", s.peak() / kMega);
}

Test(simulation, tiny_heap) {
  Program program;
  program.globals = program.stacks = 0.02 * kMega;
  program.live = [](double) { return 0.1 * kMega; };
  Simulation s(program, 100, kNoMemoryLimit);
  s.RunFor(2);
  // At 0.4 GB/s it takes about 10 ms to 4 MiB.
  cr_expect(s.cycles().size() > 150 && s.cycles().size() < 260, "%zu", s.cycles().size());
  cr_expect(s.peak() < 4.4 * kMega, "%f", s.peak() / kMega);
}

// A program that frees what it allocates and builds its data up: all that is live stays.
Test(simulation, data_that_grows_without_garbage) {
  auto cycles = [](int32_t percent, int64_t limit) {
    Program program;
    program.live = [](double) { return 1e12; };
    program.alloc_rate = [](double) { return 0.05; };
    Simulation s(program, percent, limit);
    s.RunFor(1.5);  // about 300 MB
    for (const auto& c : s.cycles()) {
      if (c.goal < 16 * kMega) continue;  // the first ones know nothing
      cr_expect(c.end < 1.1 * c.goal, "%.1f of %.1f", c.end / kMega, c.goal / kMega);
    }
    return s.cycles().size();
  };
  cr_expect(cycles(100, kNoMemoryLimit) <= 4, "%zu", cycles(100, kNoMemoryLimit));
  // Without the longer way: 4, 8, 16, ... 256 MiB. Who asks for less memory has it that way.
  cr_expect(cycles(99, kNoMemoryLimit) >= 6, "%zu", cycles(99, kNoMemoryLimit));
}

// The same program begins to lose what it allocates.
Test(simulation, a_leak_after_quiet_cycles_is_bounded) {
  for (double live : {1.0, 3.0, 10.0, 40.0, 200.0}) {
    Program program;
    program.live = [=](double) { return live * kMega; };
    program.alloc_rate = [=](double) { return live * 0.0001; };  // all of it in 2.5 s
    program.globals = program.stacks = 0.01 * kMega;
    Simulation s(program, 100, kNoMemoryLimit);
    s.RunFor(20);
    cr_assert(s.cycles().size() >= 2);
    double bound = (3 * live + 16) * kMega;
    cr_expect(s.peak() < 1.05 * bound, "%.0f MiB live: %.1f", live, s.peak() / kMega);
    double usual = std::max(4.0, 2 * live) * kMega;
    cr_expect(FromEnd(s, 0).goal < 1.1 * usual, "%.1f", FromEnd(s, 0).goal / kMega);
  }
}

// The same at 400 MB/s, faster than leaks are.
Test(simulation, a_fast_leak_after_quiet_cycles_is_bounded) {
  for (double live : {10.0, 40.0, 200.0, 1000.0}) {
    Program program;
    program.live = [=](double) { return live * kMega; };
    program.alloc_rate = [](double) { return 0.1; };
    program.globals = program.stacks = 0.01 * kMega;
    Simulation s(program, 100, kNoMemoryLimit);
    s.RunFor(8);
    double bound = (2 * live + 272 + 16) * kMega;
    cr_expect(s.peak() < 1.05 * bound, "%.0f MiB live: %.1f", live, s.peak() / kMega);
    double usual = 2 * 1.3 * live * kMega;  // with what came while it was marked
    cr_expect(FromEnd(s, 0).goal < 1.1 * usual, "%.1f", FromEnd(s, 0).goal / kMega);
  }
}

// A program that read its data at once begins to lose 100 MB/s, which is slow enough for the rule
// after one quiet cycle to tell it from data.
Test(simulation, a_leak_after_fast_growth_is_found_soon) {
  Program program;
  program.live = [](double t) { return std::min(1000 * t, 100.0) * kMega; };
  program.alloc_rate = [](double t) { return t < 0.1 ? 0.25 : 0.025; };
  Simulation s(program, 100, kNoMemoryLimit);
  s.RunFor(8);
  cr_expect(s.peak() < 230 * kMega, "%.1f", s.peak() / kMega);
  cr_expect(FromEnd(s, 0).goal < 220 * kMega, "%.1f", FromEnd(s, 0).goal / kMega);
}

// Who builds up much within seconds pays for one small cycle and those of a large heap.
Test(simulation, data_that_grows_fast_is_not_marked_again_and_again) {
  Program program;
  program.live = [](double) { return 1e12; };
  program.alloc_rate = [](double) { return 0.5; };
  Simulation s(program, 100, kNoMemoryLimit);
  s.RunFor(0.2);  // about 250 MB
  cr_expect(s.cycles().size() == 1, "%zu", s.cycles().size());
  s.RunFor(0.6);
  cr_expect(s.cycles().size() <= 4, "%zu", s.cycles().size());
}

Test(simulation, switched_off_and_on) {
  Simulation s(Program{}, 100, kNoMemoryLimit);
  s.RunFor(2);
  size_t before = s.cycles().size();
  s.pacer().SetPercent(-1);
  s.pacer().Commit(static_cast<uint64_t>(s.heap_live()), true);
  s.RunFor(1);
  cr_expect(s.cycles().size() <= before + 1);
  s.pacer().SetPercent(100);
  s.pacer().Commit(static_cast<uint64_t>(s.heap_live()), true);
  s.RunFor(4);
  ExpectOnGoal(s, 3, 0.02, "on again");
}
