// SPDX-License-Identifier: Apache-2.0
// What the collector prints: the lines of gctrace and its relatives, and those about hidden
// pointers.
#include "base/fmt.h"
#include "gc/audit.h"
#include "gc/collector_state.h"
#include "gc/trace.h"
#include "heap/site.h"
#include "plat/backtrace.h"
#include "plat/clock.h"
#include "plat/log.h"

namespace undergo::gc {

namespace {

constexpr uint32_t kLinesPerSite = 3;  // about hidden pointers

using heap::LiveBytes;

const char* ModeName(heap::ReclaimMode mode) {
  if (mode == heap::ReclaimMode::kReclaim) return "on";
  if (mode == heap::ReclaimMode::kQuarantine) return "quarantine";
  return mode == heap::ReclaimMode::kReport ? "report" : "poison";
}

}  // namespace

void Say(const char* what, const char* why) {
  char line[256];
  Fmt out(line, sizeof line);
  out.Str("undergo: ").Str(what).Str(why).Char('\n');
  plat::LogWrite(out.text(), out.length());
}

void SayStart(const char* kernel) {
  bool stop = collector.config.stop_the_world != 0;
  collector.told =
      collector.cycle.Probe(stop ? Facility::kStopped : collector.config.first_facility);
  char line[256];
  Fmt out(line, sizeof line);
  out.Str("undergo: collector ")
      .Str(ModeName(collector.config.mode))
      .Str(": writes are noticed by ");
  out.Str(FacilityName(collector.told));
  if (collector.cycle.change_reason()[0] != '\0')
    out.Str(" (").Str(collector.cycle.change_reason()).Str(")");
  out.Str(", scan kernel ").Str(kernel).Str(", ");
  out.Dec(static_cast<uint64_t>(collector.config.procs)).Str(" procs\n");
  plat::LogWrite(out.text(), out.length());
}

// In the trace, when it is another than before.
void SayFacility() {
  Facility f = collector.cycle.facility();
  if (f == collector.told) return;
  collector.told = f;
  if (!collector.config.trace) return;
  char line[256];
  Fmt out(line, sizeof line);
  out.Str("undergo: writes are noticed by ").Str(FacilityName(f)).Str(" now");
  const char* why = collector.cycle.change_reason();
  if (why[0] != '\0') out.Str(": ").Str(why);
  out.Char('\n');
  plat::LogWrite(out.text(), out.length());
}

void TraceCycle(const CycleTimes& t, uint64_t live_at_start, uint64_t goal, uint64_t marked) {
  GcTrace line;
  line.cycle = collector.stats.cycles;
  line.start = static_cast<int64_t>(t.start_ns - collector.process_start_ns);
  line.gc_share = collector.stats.cpu_fraction;
  line.first_stop = static_cast<int64_t>(t.stop1_ns);
  line.mark = static_cast<int64_t>(t.mark_ns);
  line.second_stop = static_cast<int64_t>(t.stop2_ns);
  line.stop_procs = collector.config.procs;
  line.assist = static_cast<int64_t>(LoadRelaxed(&collector.assist_ns));
  line.workers =
      static_cast<int64_t>(plat::NowNs(CLOCK_THREAD_CPUTIME_ID) - collector.start_cpu + t.copy_ns);
  line.live_at_start = live_at_start;
  line.live_at_end = t.live_at_end;
  line.marked = marked;
  line.goal = goal;
  line.stacks = t.stack_bytes;
  line.globals = t.globals_bytes;
  line.procs = collector.config.procs;
  line.forced = collector.forced;
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatGcTrace(line, &out);
  plat::LogWrite(out.text(), out.length());
}

void TracePacerStart() {
  if (!collector.config.pacer_trace) return;
  PacerStartTrace t;
  t.work_per_byte = collector.pacer.AssistWorkPerByte();
  t.heap_scan = t.heap_live = LiveBytes();
  t.goal = collector.pacer.Goal(Sizes());
  t.dedicated = collector.pacer.workers().dedicated;
  t.fractional = collector.pacer.workers().fractional;
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatPacerStart(t, &out);
  plat::LogWrite(out.text(), out.length());
}

void TracePacerEnd(const PacerEndTrace& t) {
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatPacerEnd(t, &out);
  plat::LogWrite(out.text(), out.length());
}

void TraceScavenger() {
  if (!collector.config.scavenger_trace) return;
  char text[kTraceLineSize];
  Fmt out(text, sizeof text);
  FormatScavenge(collector.scavenger.TakeTrace(), &out);
  plat::LogWrite(out.text(), out.length());
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
  if (collector.config.mode == heap::ReclaimMode::kReclaim) {
    out.Str(
        ": objects of this size are no longer collected; undergo audit tells where they are from");
  }
  out.Char('\n');
  plat::LogWrite(out.text(), out.length());
}

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

}  // namespace undergo::gc
