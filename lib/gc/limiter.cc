// SPDX-License-Identifier: Apache-2.0
// The CPU limiter.
//
// Problem. Near the memory limit, cycle follows cycle and allocating threads do nothing but assist:
// the program stands still. Above some share of the CPU it is better to exceed the limit.
//
// Parts. The collector's CPU time fills a bucket, the program's drains it, one to one, so a bucket
// that is full means more than half. It holds one second for each CPU: bursts pass. It is never
// below empty, so that a night of idling buys no hour of thrashing. The collector's time is taken
// as it is planned, a quarter of all CPUs while marking, plus assists and stops as measured.
//
// The time since the last update belongs to who moves `last_update_`; everything else is a single
// atomic addition. Rejected: a lock, as in Go, whose holder could be stopped for the very
// transition that needs it.

#include "gc/limiter.h"

#include "base/atomic.h"
#include "gc/pacer.h"

namespace undergo::gc {
namespace {

constexpr int64_t kCapacityPerProc = 1'000'000'000;
constexpr int64_t kUpdatePeriod = 10'000'000;

int64_t TakeAll(int64_t* pool) {
  int64_t ns = LoadRelaxed(pool);
  FetchAddRelaxed(pool, -ns);
  return ns;
}

}  // namespace

void CpuLimiter::SetProcs(int procs, int64_t now) {
  Update(now);
  StoreRelaxed(&last_update_, now);
  StoreRelaxed(&procs_, procs);
  int64_t capacity = procs * kCapacityPerProc;
  StoreRelaxed(&capacity_, capacity);
  if (LoadRelaxed(&fill_) > capacity) StoreRelaxed(&fill_, capacity);
  if (Limiting()) StoreRelaxed(&last_limited_cycle_, LoadRelaxed(&cycle_));
}

bool CpuLimiter::Limiting() const {
  int64_t capacity = LoadRelaxed(&capacity_);
  return capacity > 0 && LoadRelaxed(&fill_) >= capacity;
}

void CpuLimiter::AddAssist(int64_t ns) { FetchAddRelaxed(&assist_pool_, ns); }
void CpuLimiter::AddIdle(int64_t ns) { FetchAddRelaxed(&idle_pool_, ns); }

bool CpuLimiter::NeedsUpdate(int64_t now) const {
  return now - LoadRelaxed(&last_update_) > kUpdatePeriod;
}

// The time since the last update, on all CPUs; 0 if another thread took it.
int64_t CpuLimiter::TakeWindow(int64_t now) {
  int64_t last = LoadRelaxed(&last_update_);
  // pairs: TakeWindow. It orders nothing else.
  if (now <= last || !CasAcqRel(&last_update_, &last, now)) return 0;
  return (now - last) * LoadRelaxed(&procs_);
}

void CpuLimiter::Update(int64_t now) {
  if (LoadRelaxed(&stopped_)) return;
  int64_t window = TakeWindow(now);
  if (window == 0) return;
  int64_t gc = TakeAll(&assist_pool_);
  if (LoadRelaxed(&marking_)) {
    gc += static_cast<int64_t>(static_cast<double>(window) * kBackgroundUtilization);
  }
  // After the collector's share, which is one of all CPUs whether they had work or not.
  window -= TakeAll(&idle_pool_);
  Accumulate(window - gc, gc);
}

void CpuLimiter::StartTransition(bool marking, int64_t now, uint64_t cycle) {
  Update(now);
  StoreRelaxed(&stopped_, true);
  StoreRelaxed(&marking_, marking);
  StoreRelaxed(&cycle_, cycle);
}

void CpuLimiter::FinishTransition(int64_t now) {
  Accumulate(0, TakeWindow(now));
  StoreRelaxed(&stopped_, false);
}

void CpuLimiter::Accumulate(int64_t mutator_ns, int64_t gc_ns) {
  int64_t capacity = LoadRelaxed(&capacity_);
  int64_t old = LoadRelaxed(&fill_);
  int64_t fill;
  do {
    fill = old + gc_ns - mutator_ns;
    if (fill < 0) fill = 0;
    if (fill > capacity) fill = capacity;
  } while (!CasAcqRel(&fill_, &old, fill));  // pairs: Accumulate. It orders nothing else.
  if (capacity > 0 && fill == capacity && old < capacity) {
    StoreRelaxed(&last_limited_cycle_, LoadRelaxed(&cycle_));
  }
}

uint64_t CpuLimiter::last_limited_cycle() const { return LoadRelaxed(&last_limited_cycle_); }
int64_t CpuLimiter::fill() const { return LoadRelaxed(&fill_); }
int64_t CpuLimiter::capacity() const { return LoadRelaxed(&capacity_); }

}  // namespace undergo::gc
