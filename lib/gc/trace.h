// SPDX-License-Identifier: Apache-2.0
// The collector's trace lines, in Go's formats to the letter, so that tools for Go's output read
// ours. Only text: the caller writes it. Sizes are bytes, times are nanoseconds.
#pragma once

#include "base/fmt.h"
#include "gc/pacer.h"

namespace undergo::gc {

inline constexpr size_t kTraceLineSize = 512;  // room for any of these lines

// GODEBUG=gctrace=1, after each cycle.
struct GcTrace {
  uint64_t cycle = 0;
  int64_t start = 0;        // since the start of the program
  double gc_share = 0;      // of all CPU time since then, without idle workers; 0..1
  int64_t first_stop = 0;   // wall time, from its request to the restart
  int64_t mark = 0;         // wall time
  int64_t second_stop = 0;  // wall time
  int stop_procs = 1;       // CPUs that a stop takes away
  int64_t assist = 0;       // CPU time
  int64_t workers = 0;      // CPU time of dedicated and fractional ones
  int64_t idle = 0;         // CPU time of idle ones
  uint64_t live_at_start = 0;
  uint64_t live_at_end = 0;
  uint64_t marked = 0;
  uint64_t goal = 0;     // of this cycle
  uint64_t stacks = 0;   // scanned
  uint64_t globals = 0;  // scanned
  int procs = 1;
  bool forced = false;  // somebody asked for the cycle and waited
};
void FormatGcTrace(const GcTrace& t, Fmt* out);

// gctrace, before a cycle that the clock starts.
inline constexpr char kTimedGcLine[] = "GC forced\n";

// GODEBUG=gcpacertrace=1, after the first stop.
struct PacerStartTrace {
  double work_per_byte = 0;
  uint64_t heap_scan = 0;
  uint64_t heap_live = 0;
  uint64_t goal = 0;
  int dedicated = 0;
  double fractional = 0;
};
void FormatPacerStart(const PacerStartTrace& t, Fmt* out);

// GODEBUG=gcpacertrace=1, in the second stop, if Pacer::EndCycle measured anything.
struct PacerEndTrace {
  double utilization = 0;  // of all CPUs, 0..1
  ScanWork work;
  uint64_t expected_work = 0;  // Pacer::ExpectedWork() before EndCycle
  uint64_t triggered = 0;      // live heap at the start
  uint64_t heap_live = 0;      // at the end
  uint64_t goal = 0;
  double cons_mark = 0;  // with which the cycle was planned
};
void FormatPacerEnd(const PacerEndTrace& t, Fmt* out);

// GODEBUG=scavtrace=1.
struct ScavengeTrace {
  uint64_t background = 0;  // given back since the last line
  uint64_t eager = 0;       // by allocations, since the last line
  uint64_t released = 0;    // now: given back and not taken again
  uint64_t in_use = 0;      // now: slices with objects
  uint64_t retained = 0;    // now: those, and free ones not given back
  bool forced = false;      // somebody asked for all
  bool reset = false;       // the controller failed
};
void FormatScavenge(const ScavengeTrace& t, Fmt* out);

// As Go's print does it: sign, seven digits, three digits of exponent.
void FormatGoFloat(double v, Fmt* out);
// At least 10 ms: whole milliseconds; less: two digits, down to microseconds.
void FormatTraceMs(int64_t ns, Fmt* out);

}  // namespace undergo::gc
