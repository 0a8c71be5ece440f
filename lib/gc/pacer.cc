// SPDX-License-Identifier: Apache-2.0
// The pacer.
//
// Problem. A concurrent cycle must end when the heap has grown to its goal, neither much later
// (memory) nor much earlier (CPU), though nobody knows how fast the program will allocate nor how
// much there is to scan.
//
// Parts. The goal follows from the live heap by GOGC, or from the memory limit if that is lower.
// The trigger stands before the goal by the runway: what the program allocates while a quarter of
// the CPUs scans as much as last time. The ratio of the two speeds, cons/mark, is measured at the
// end of each cycle, and the largest of five counts: too early a start costs little, too late a one
// makes the program help. Helping is the assist ratio, scan work left against allocation left, so
// that both run out together; it is revised as either moves.
//
// The formulas are Go's (the runtime of Go 1.25; design 44167 of the Go project), so that what is
// known about tuning GOGC and GOMEMLIMIT holds here. Three departures, where Go's numbers wrap
// around: goals saturate, a collection that is forced while GOGC=off has no goal and so needs no
// assists, and the first cycle, which expects no work, extends its goal to the limit at once.
// Here the live heap also falls, as the program frees: then cycles simply come later. And assists
// that have to wait count as time in which the program did not run, when cons/mark is measured.
//
// And one departure of substance. Most programs that come here free what they allocate. While such
// a program builds its data up, each doubling of the heap is marked for nothing. So a cycle that
// found next to no garbage lets the heap grow further until the next one: by a constant and as much
// as is live, or a quarter of it in large heaps, whose owners watch memory more than marking. What
// grows there is the program's data, which takes its memory anyway, or leaks that began since; for
// these the bound is 3 (2.25) times what is live and 16 MiB, instead of twice, once: the first
// cycle that finds garbage ends it. And the cycle after such a one is put off while the heap grows
// so fast that it would cost more than a fifth of the time since the last, or a fiftieth after two
// such cycles in a row: it begins at twice what is live and 288 MiB at the latest, earlier where
// memory is scarce. A leak is slower than a program that reads its data; and where it is not, small
// heaps take then what large heaps may take anyway.
//
// Rejected: a controller that smooths cons/mark (Go 1.19), which needs many cycles to see a change
// of phase.

#include "gc/pacer.h"

#include "base/atomic.h"

namespace undergo::gc {
namespace {

// Bounds of the trigger between live heap and goal, in 64ths.
constexpr uint64_t kMinTrigger64ths = 45;
constexpr uint64_t kMaxTrigger64ths = 61;
constexpr uint64_t kMaxRunway64ths = 64 - kMinTrigger64ths;

constexpr uint64_t kMinHeadroom = kMiB;  // below the memory limit
constexpr uint64_t kHeadroomPercent = 3;

constexpr double kMaxWorkerError = 0.3;
constexpr double kMaxOvershoot = 1.1;
constexpr int64_t kMinWorkLeft = 1000;
constexpr int32_t kPercentWhenOff = 100000;
// Times of assists are measured thread by thread; together they can exceed what there was.
constexpr double kMaxUtilization = 0.99;
constexpr double kFractionalSlack = 1.2;
constexpr int64_t kMinPageDistance = 8 * kKiB;

// After a cycle that found at most so much of its heap dead, the next goal lies further away.
constexpr uint64_t kQuietPart = 64;
constexpr uint64_t kQuietRoom = 16 * kMiB;   // and the live heap, up to
constexpr uint64_t kQuietCopy = 256 * kMiB;  // or, if that is more,
constexpr uint64_t kQuietRoomPart = 4;       // of it
constexpr int32_t kQuietPercent = 100;       // below it, or with a limit, memory is to be spared
// The cycle after it is put off while it would cost more than this part of the time between them,
constexpr double kQuietTimePart = 5;
constexpr double kQuietTimePartLater = 50;    // or this, after two such cycles in a row;
constexpr uint64_t kPutOffMost = 272 * kMiB;  // all in all by so much and kQuietRoom

uint64_t AddOrMax(uint64_t a, uint64_t b) {
  uint64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

uint64_t PercentOf(uint64_t bytes, int32_t percent) {
  unsigned __int128 product =
      static_cast<unsigned __int128>(bytes) * static_cast<uint32_t>(percent);
  product /= 100;
  return product > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(product);
}

// The nearest value that exists; what is no number counts as infinite.
int64_t ToSigned(double v) {
  if (v <= -9.2e18) return INT64_MIN;
  return v < 9.2e18 ? static_cast<int64_t>(v) : INT64_MAX;
}

int64_t ToSigned(uint64_t v) { return v > INT64_MAX ? INT64_MAX : static_cast<int64_t>(v); }

uint64_t Clamp(uint64_t v, uint64_t low, uint64_t high) {
  if (v < low) return low;
  return v > high ? high : v;
}

}  // namespace

void Pacer::Init(int32_t percent, int64_t memory_limit) {
  SetPercent(percent);
  SetMemoryLimit(memory_limit);
  Commit(0, true);
}

void Pacer::SetPercent(int32_t percent) { StoreRelaxed(&percent_, percent < 0 ? kGcOff : percent); }

void Pacer::SetMemoryLimit(int64_t bytes) {
  StoreRelaxed(&memory_limit_, bytes < 0 ? kNoMemoryLimit : bytes);
}

void Pacer::NoteGarbage(uint64_t bytes) {
  bool quiet = bytes <= AddOrMax(heap_marked_, bytes) / kQuietPart;
  quiet_cycles_ = quiet ? quiet_cycles_ + 1 : 0;
}

bool Pacer::GrowsFurther() const {
  return quiet_cycles_ != 0 && percent_ >= kQuietPercent && memory_limit_ == kNoMemoryLimit;
}

uint64_t Pacer::GogcGoal() const {
  uint64_t base = heap_marked_ + last_stack_scan_ + globals_;
  return Max(AddOrMax(heap_marked_, PercentOf(base, percent_)), PercentOf(kMinimumHeap, percent_));
}

double Pacer::GrowthTo(uint64_t heap) const {
  return static_cast<double>(heap) / static_cast<double>(Max(heap_marked_, kMiB));
}

void Pacer::Commit(uint64_t heap_live, bool sweep_done) {
  StoreRelaxed(&sweep_min_trigger_, sweep_done ? 0 : AddOrMax(heap_live, kMinSweepDistance));
  if (percent_ < 0) return SetGoal(kNoGoal, last_heap_scan_);
  uint64_t goal = GogcGoal();
  if (!GrowsFurther()) return SetGoal(goal, last_heap_scan_);
  uint64_t room = Max(heap_marked_ / kQuietRoomPart, Min(heap_marked_, kQuietCopy));
  SetQuietGoal(AddOrMax(goal, room + kQuietRoom));
}

bool Pacer::PutOff(uint64_t heap_live, int64_t since_last, uint64_t spare) {
  if (!GrowsFurther()) return false;
  double cost = static_cast<double>(last_cpu_ns_) * GrowthTo(heap_live);
  double part = quiet_cycles_ == 1 ? kQuietTimePart : kQuietTimePartLater;
  if (static_cast<double>(since_last) >= cost * part) return false;
  uint64_t room = Max(heap_marked_ / kQuietRoomPart, Min(spare, kPutOffMost)) + kQuietRoom;
  uint64_t furthest = AddOrMax(GogcGoal(), room);
  if (heap_marked_ < kQuietCopy) {
    // What comes during the cycle is not counted: fast programs would begin it much earlier.
    furthest = AddOrMax(furthest, Min(runway_, room / kMinTrigger64ths * kMaxRunway64ths));
  }
  if (percent_goal_ >= furthest) return false;
  SetQuietGoal(Min(furthest, AddOrMax(Max(percent_goal_, heap_live), kQuietRoom)));
  return true;
}

// Nothing of what comes until then will be garbage.
void Pacer::SetQuietGoal(uint64_t goal) {
  double expected = static_cast<double>(last_heap_scan_) * GrowthTo(goal);
  SetGoal(goal, static_cast<uint64_t>(ToSigned(expected)));
}

void Pacer::SetGoal(uint64_t goal, uint64_t expected_heap) {
  expected_heap_ = expected_heap;
  StoreRelaxed(&percent_goal_, goal);
  double mutators_share = (1 - kBackgroundUtilization) / kBackgroundUtilization;
  double runway = cons_mark_ * mutators_share * static_cast<double>(ExpectedWork());
  StoreRelaxed(&runway_, static_cast<uint64_t>(ToSigned(runway)));
}

uint64_t Pacer::ExpectedWork() const { return expected_heap_ + last_stack_scan_ + globals_; }

uint64_t Pacer::MemoryLimitGoal(const MemorySizes& sizes) const {
  int64_t signed_limit = LoadRelaxed(&memory_limit_);
  if (signed_limit == kNoMemoryLimit) return kNoGoal;
  uint64_t limit = static_cast<uint64_t>(signed_limit);
  uint64_t marked = LoadRelaxed(&heap_marked_);
  // The sizes are counted one after the other while they change: they may not add up.
  uint64_t heap = sizes.heap_free + sizes.heap_alloc;
  uint64_t other = sizes.mapped_ready > heap ? sizes.mapped_ready - heap : 0;
  uint64_t overage = sizes.mapped_ready > limit ? sizes.mapped_ready - limit : 0;
  if (AddOrMax(other, overage) >= limit) return marked;
  uint64_t goal = limit - other - overage;
  uint64_t headroom = Max(goal / 100 * kHeadroomPercent, kMinHeadroom);
  goal = goal < 2 * headroom ? headroom : goal - headroom;
  return Max(goal, marked);
}

Pacer::GoalAndFloor Pacer::FindGoal(const MemorySizes& sizes) const {
  uint64_t goal = LoadRelaxed(&percent_goal_);
  uint64_t limit_goal = MemoryLimitGoal(sizes);
  // What moves the goal up is not for the memory limit.
  if (limit_goal < goal) return {limit_goal, 0};
  uint64_t min_trigger = LoadRelaxed(&sweep_min_trigger_);
  goal = Max(goal, min_trigger);
  uint64_t triggered = LoadRelaxed(&triggered_);
  if (triggered != kNoGoal) goal = Max(goal, AddOrMax(triggered, kMinRunway));
  return {goal, min_trigger};
}

uint64_t Pacer::Goal(const MemorySizes& sizes) const { return FindGoal(sizes).goal; }

bool Pacer::GoalIsLimit(const MemorySizes& sizes) const {
  return MemoryLimitGoal(sizes) < LoadRelaxed(&percent_goal_);
}

HeapTarget Pacer::Target(const MemorySizes& sizes) const {
  auto [goal, low] = FindGoal(sizes);
  uint64_t marked = LoadRelaxed(&heap_marked_);
  if (marked >= goal) return {goal, goal};
  low = Max(low, marked + (goal - marked) / 64 * kMinTrigger64ths);
  uint64_t high = marked + (goal - marked) / 64 * kMaxTrigger64ths;
  // A big heap with little to scan needs no more room than an empty cycle takes.
  if (goal > kMinimumHeap) high = Max(high, goal - kMinimumHeap);
  high = Max(high, low);
  uint64_t runway = LoadRelaxed(&runway_);
  return {Clamp(runway > goal ? 0 : goal - runway, low, high), goal};
}

bool Pacer::TimedGcDue(int64_t now, int64_t last_gc) const {
  return percent() >= 0 && last_gc != 0 && now - last_gc > kForcedGcPeriod;
}

void Pacer::PlanWorkers(const CycleStart& start) {
  double wanted = start.procs * kBackgroundUtilization;
  int dedicated = static_cast<int>(wanted + 0.5);
  double error = dedicated / wanted - 1;
  double fractional = 0;
  // With few CPUs whole workers are too coarse.
  if (error < -kMaxWorkerError || error > kMaxWorkerError) {
    if (dedicated > wanted) dedicated--;
    fractional = (wanted - dedicated) / start.procs;
  }
  if (start.stop_the_world) {
    dedicated = start.procs;
    fractional = 0;
  }
  int idle = start.procs - dedicated;
  // An idle program is left in peace, but somebody has to make progress.
  if (start.timed) idle = dedicated > 0 ? 0 : 1;
  workers_ = {dedicated, fractional, idle};
}

void Pacer::StartCycle(const CycleStart& start, const MemorySizes& sizes) {
  mark_start_ = start.now;
  heap_scan_ = start.heap_scan;
  max_stack_ = start.max_stack;
  globals_ = start.globals;
  StoreRelaxed(&triggered_, start.heap_live);
  PlanWorkers(start);
  Revise(start.heap_live, ScanWork{}, sizes);
}

void Pacer::Revise(uint64_t heap_live, const ScanWork& work, const MemorySizes& sizes) {
  int32_t percent = LoadRelaxed(&percent_);
  if (percent < 0) percent = kPercentWhenOff;
  int64_t live = ToSigned(heap_live);
  int64_t done = ToSigned(work.total());
  int64_t goal = ToSigned(Goal(sizes));
  int64_t expected = ToSigned(ExpectedWork());
  int64_t most = ToSigned(heap_scan_ + max_stack_ + globals_);
  if (done > expected) {
    // The heap grows. The goal moves so that the ratio stays: the next cycle will allow as much.
    int64_t triggered = ToSigned(triggered_);
    double extended = static_cast<double>(goal - triggered) / static_cast<double>(expected) *
                          static_cast<double>(most) +
                      static_cast<double>(triggered);
    double hardest = (1.0 + percent / 100.0) * static_cast<double>(goal);
    goal = ToSigned(extended <= hardest ? extended : hardest);
    if (goal < 0) goal = 0;
    expected = most;
  }
  if (live > goal) {
    // Too late for that. Some more room, but then it must be all.
    goal = ToSigned(static_cast<double>(goal) * kMaxOvershoot);
    expected = most;
  }
  int64_t left = expected - done;
  if (left < kMinWorkLeft) left = kMinWorkLeft;
  int64_t room = goal - live;
  if (room < 1) room = 1;
  StoreRelaxed(&work_per_byte_, static_cast<double>(left) / static_cast<double>(room));
  StoreRelaxed(&bytes_per_work_, static_cast<double>(room) / static_cast<double>(left));
}

bool Pacer::EndCycle(const CycleEnd& end, const MemorySizes& sizes) {
  last_goal_ = Goal(sizes);
  double cpu_ns = static_cast<double>(end.now - mark_start_) * end.procs;
  double utilization = kBackgroundUtilization, idle = 0, waited = 0;
  if (cpu_ns > 0) {
    utilization += static_cast<double>(end.assist_ns) / cpu_ns;
    idle = static_cast<double>(end.idle_ns) / cpu_ns;
    waited = static_cast<double>(end.wait_ns) / cpu_ns;
  }
  if (utilization > kMaxUtilization) utilization = kMaxUtilization;
  last_utilization_ = utilization;

  bool measured = end.heap_live > triggered_ && end.work.total() > 0;
  if (measured) {
    double allocated = static_cast<double>(end.heap_live - triggered_);
    double running = 1 - utilization - waited;
    if (running < 1 - kMaxUtilization) running = 1 - kMaxUtilization;
    double current =
        allocated * (utilization + idle) / (static_cast<double>(end.work.total()) * running);
    cons_mark_ = current;
    for (double last : last_cons_marks_) {
      if (last > cons_mark_) cons_mark_ = last;
    }
    for (int i = 0; i < 3; i++) last_cons_marks_[i] = last_cons_marks_[i + 1];
    last_cons_marks_[3] = current;
  }

  last_heap_scan_ = end.work.heap;
  last_stack_scan_ = end.work.stack;
  // Go knows its globals from the start. Here they are the stacks of parked threads, too, and come
  // and go: those before this cycle say too little while threads are made.
  globals_ = end.globals;
  last_cpu_ns_ = end.cpu_ns;
  StoreRelaxed(&heap_marked_, end.marked);
  StoreRelaxed(&triggered_, kNoGoal);
  return measured;
}

double Pacer::AssistWorkPerByte() const { return LoadRelaxed(&work_per_byte_); }
double Pacer::AssistBytesPerWork() const { return LoadRelaxed(&bytes_per_work_); }

AssistDebt Pacer::DebtFor(int64_t bytes) const {
  int64_t work = ToSigned(AssistWorkPerByte() * static_cast<double>(bytes));
  if (work >= kMinAssistWork) return {work, bytes};
  return {kMinAssistWork, ToSigned(AssistBytesPerWork() * static_cast<double>(kMinAssistWork))};
}

int64_t Pacer::CreditFor(int64_t work) const {
  int64_t bytes = ToSigned(AssistBytesPerWork() * static_cast<double>(work));
  // One more, so that rounding never leaves a debt behind that work was done for.
  return bytes == INT64_MAX ? bytes : bytes + 1;
}

bool Pacer::FractionalMayRun(int64_t self_ns, int64_t elapsed_ns) const {
  if (workers_.fractional == 0) return false;
  return elapsed_ns <= 0 ||
         static_cast<double>(self_ns) <= workers_.fractional * static_cast<double>(elapsed_ns);
}

bool Pacer::FractionalMustStop(int64_t self_ns, int64_t elapsed_ns) const {
  double share = kFractionalSlack * workers_.fractional;
  return elapsed_ns <= 0 || static_cast<double>(self_ns) > share * static_cast<double>(elapsed_ns);
}

int32_t Pacer::percent() const { return LoadRelaxed(&percent_); }
int64_t Pacer::memory_limit() const { return LoadRelaxed(&memory_limit_); }
uint64_t Pacer::heap_marked() const { return LoadRelaxed(&heap_marked_); }
uint64_t Pacer::triggered() const { return LoadRelaxed(&triggered_); }

void SweepPacer::Pace(uint64_t trigger, uint64_t heap_live, uint64_t pages_in_use,
                      uint64_t pages_swept) {
  if (pages_swept >= pages_in_use) return Done();
  // Early by the minimum distance, so that nothing is left when the next cycle starts.
  int64_t distance =
      ToSigned(trigger) - ToSigned(heap_live) - static_cast<int64_t>(kMinSweepDistance);
  if (distance < kMinPageDistance) distance = kMinPageDistance;
  live_basis_ = heap_live;
  swept_basis_ = pages_swept;
  pages_per_byte_ = static_cast<double>(pages_in_use - pages_swept) / static_cast<double>(distance);
}

int64_t SweepPacer::PagesOwed(uint64_t heap_live, uint64_t bytes, uint64_t pages_swept,
                              uint64_t caller_pages) const {
  if (pages_per_byte_ == 0) return 0;
  // The program's own frees may have brought the heap below the basis.
  double grown = static_cast<double>(static_cast<int64_t>(heap_live - live_basis_)) +
                 static_cast<double>(bytes);
  int64_t target = ToSigned(pages_per_byte_ * grown) - ToSigned(caller_pages);
  int64_t owed = target - static_cast<int64_t>(pages_swept - swept_basis_);
  return owed > 0 ? owed : 0;
}

}  // namespace undergo::gc
