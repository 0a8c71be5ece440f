// SPDX-License-Identifier: Apache-2.0
// Prints trace lines by the library's own functions. Each line of standard input is a kind and its
// fields, the numbers of the structure in gc/trace.h in their order.

#include <cinttypes>
#include <cstdio>

#include "gc/trace.h"

using namespace undergo;
using namespace undergo::gc;

namespace {

bool Number(double* v) { return scanf("%lf", v) == 1; }

template <typename... T>
bool Numbers(T*... fields) {
  double v;
  return ((Number(&v) && (*fields = static_cast<T>(v), true)) && ...);
}

bool Gc(Fmt* out) {
  GcTrace t;
  if (!Numbers(&t.cycle, &t.start, &t.gc_share, &t.first_stop, &t.mark, &t.second_stop,
               &t.stop_procs, &t.assist, &t.workers, &t.idle, &t.live_at_start, &t.live_at_end,
               &t.marked, &t.goal, &t.stacks, &t.globals, &t.procs, &t.forced)) {
    return false;
  }
  FormatGcTrace(t, out);
  return true;
}

bool PacerStart(Fmt* out) {
  PacerStartTrace t;
  if (!Numbers(&t.work_per_byte, &t.heap_scan, &t.heap_live, &t.goal, &t.dedicated,
               &t.fractional)) {
    return false;
  }
  FormatPacerStart(t, out);
  return true;
}

bool PacerEnd(Fmt* out) {
  PacerEndTrace t;
  if (!Numbers(&t.utilization, &t.work.heap, &t.work.stack, &t.work.globals, &t.expected_work,
               &t.triggered, &t.heap_live, &t.goal, &t.cons_mark)) {
    return false;
  }
  FormatPacerEnd(t, out);
  return true;
}

bool Scav(Fmt* out) {
  ScavengeTrace t;
  if (!Numbers(&t.background, &t.eager, &t.released, &t.in_use, &t.retained, &t.forced, &t.reset)) {
    return false;
  }
  FormatScavenge(t, out);
  return true;
}

}  // namespace

int main() {
  char kind, buffer[kTraceLineSize];
  while (scanf(" %c", &kind) == 1) {
    Fmt out(buffer, sizeof buffer);
    bool ok = kind == 'g'   ? Gc(&out)
              : kind == 's' ? PacerStart(&out)
              : kind == 'e' ? PacerEnd(&out)
              : kind == 'v' ? Scav(&out)
                            : false;
    if (!ok) {
      fprintf(stderr, "format: bad input after '%c'\n", kind);
      return 2;
    }
    fputs(buffer, stdout);
  }
  return 0;
}
