// SPDX-License-Identifier: Apache-2.0
// gdb (13, and all before it) makes the threads of a stopped program go on one after another, the
// first kernel thread first, and gives up with "Couldn't get registers: No such process" when the
// process ends before the last of them. Natively that takes a thread that ends the process within
// microseconds; here the G that gdb had stopped in often is on the first M itself.
#include "diag/tracer.h"

#include "plat/clock.h"
#include "plat/proc_file.h"
#include "sched/confine.h"
#include "sched/sched.h"

namespace undergo::diag {

void AwaitTracer() {
  char text[4096];
  // A filter may kill for what the reading takes.
  if (!sched::Active() || sched::IsConfined()) return;
  if (plat::ReadProcFile("/proc/self/status", text, sizeof text) <= 0) return;
  uint64_t tracer = plat::StatusField(text, "TracerPid", 10);
  if (tracer == 0 || tracer == ~uint64_t{0}) return;
  constexpr uint64_t kEnough = 20'000'000;  // ns; each thread takes some tens of microseconds
  plat::NapNs(kEnough);
}

}  // namespace undergo::diag
