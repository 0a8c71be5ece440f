// SPDX-License-Identifier: Apache-2.0
// GODEBUG=schedtrace=N and scheddetail=1: the scheduler's state in Go's format to the letter, so
// that tools for Go's output read ours.
#pragma once

#include "base/fmt.h"
#include "sched/sched.h"

namespace undergo::sched {

// Before the scheduler starts. 0: no trace.
void ConfigureTrace(uint64_t period_ns, bool detailed);
// How long sysmon may sleep at most; 0: as long as it likes.
uint64_t TracePeriod();
// sysmon: prints when a period is over.
void TraceIfDue(uint64_t now);

// The first line, which is all without detail.
void FormatTrace(uint64_t since_start_ns, Fmt* out);
void FormatTraceOf(const P* p, Fmt* out);
void FormatTraceOf(const M* m, Fmt* out);
void FormatTraceOf(const G* g, Fmt* out);
inline constexpr size_t kTraceLine = 4096;  // room for the first line with kMaxProcs queues

}  // namespace undergo::sched
