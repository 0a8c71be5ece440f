// SPDX-License-Identifier: Apache-2.0
// The collector: settings, requests, what boot and the C interface need. How a cycle goes is told
// in gc.cc.
#pragma once

#include "base/types.h"
#include "gc/facility.h"
#include "gc/filter.h"
#include "heap/sweep.h"

namespace undergo::gc {

struct Config {
  int32_t percent = 100;  // GOGC; negative is off
  int64_t memory_limit = INT64_MAX;
  int procs = 1;  // GOMAXPROCS
  // Bytes of memory that the process may use, 0 if nobody knows. The coordinator asks.
  uint64_t (*memory)() = nullptr;
  heap::ReclaimMode mode = heap::ReclaimMode::kReclaim;
  bool trace = false;  // GODEBUG=gctrace=1
  bool pacer_trace = false;
  bool scavenger_trace = false;
  bool check_mark = false;  // GODEBUG=gccheckmark=1
  int stop_the_world = 0;   // GODEBUG=gcstoptheworld
  bool clobber = false;
  bool unaligned = false;  // UNDERGO=unaligned
  bool stress = false;     // a cycle whenever a thread takes new slots, which waits for its end
  Facility first_facility = Facility::kWriteProtect;  // better ones are not used
};

// Turns the collector on. Called once, before the program's first instruction, on its first thread.
void Start(const Config& config);
// Nothing is reclaimed any more, for good; one line says so. `why` is a constant.
void LatchOff(const char* why);
bool IsOn();

// A whole cycle that begins after the call, and its sweep. False when the collector is off or the
// cycle was given up. Not in signal handlers.
bool Collect();
int32_t SetPercent(int32_t percent);    // returns the old one
int64_t SetMemoryLimit(int64_t bytes);  // negative: only returns the old one
bool AddRoots(Addr from, Addr to);

// The program ends: prints what the mode has to say, after a last cycle where that is of use.
void ReportAtExit();

struct CollectorStats {
  uint32_t cycles, forced_cycles, abandoned_cycles;
  bool enabled;
  uint64_t pause_total_ns;
  uint64_t max_pause_ns;
  uint64_t last_end_ns;  // CLOCK_REALTIME of the end of the last cycle
  uint64_t goal, trigger, live, marked;
  double cpu_fraction;  // of all CPUs, since the process began
  uint64_t memory;      // bytes of marks and of the collector's own tables, by address space in use
  heap::SweepCounts sweep;
};
void ReadStats(CollectorStats* out);

// Around the system call userfaultfd of the program: ranges can be registered with one only, so
// this waits for the end of a running cycle, and later ones do without, as long as it is open.
void BeforeUserfaultfd();
void AfterUserfaultfd();

// A filter of system calls is about to be installed (gc/filter.h). Where it would kill for calls of
// ours, the collector ends, or does without them, before this returns.
void BeforeFilter(const FilterVerdict& verdict);

// Around exec: false in another process that shares the memory (a child of vfork), where nothing is
// to be done; else AfterExec must follow if the call fails. Safe in signal handlers.
bool BeforeExec();
void AfterExec();

// By the clock, from a thread of the library that lives: requests the cycle that is due two minutes
// after the last one. `now` is CLOCK_MONOTONIC in ns.
void CheckTimer(uint64_t now);

// After fork, in the child.
void AfterForkInChild();

}  // namespace undergo::gc
