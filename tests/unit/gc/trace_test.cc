// SPDX-License-Identifier: Apache-2.0
// Trace lines: number formats by table, lines as a whole, the longest line.

#include "gc/trace.h"

#include <criterion/criterion.h>

#include <cmath>
#include <cstring>

using namespace undergo;
using namespace undergo::gc;

namespace {

struct Line {
  char text[kTraceLineSize];
  Fmt out{text, sizeof text};
};

void ExpectText(const char* text, const char* wanted) {
  cr_expect(strcmp(text, wanted) == 0, "'%s', wanted '%s'", text, wanted);
}

}  // namespace

Test(trace, floats_as_go_prints_them) {
  struct {
    double v;
    const char* text;
  } cases[] = {{0, "+0.000000e+000"},
               {-0.0, "-0.000000e+000"},
               {1, "+1.000000e+000"},
               {-1.5, "-1.500000e+000"},
               {0.25, "+2.500000e-001"},
               {1.402331, "+1.402331e+000"},
               {9.9999994, "+9.999999e+000"},
               {9.9999996, "+1.000000e+001"},
               {123456789, "+1.234568e+008"},
               {1e100, "+1.000000e+100"},
               {5e-324, "+4.940656e-324"},
               {1.7976931348623157e308, "+1.797693e+308"},
               {INFINITY, "+Inf"},
               {-INFINITY, "-Inf"},
               {NAN, "NaN"}};
  for (const auto& c : cases) {
    Line line;
    FormatGoFloat(c.v, &line.out);
    ExpectText(line.text, c.text);
  }
}

Test(trace, times_are_cut_to_two_digits) {
  struct {
    int64_t ns;
    const char* text;
  } cases[] = {{0, "0"},           {999, "0"},
               {1000, "0.001"},    {31'999, "0.031"},
               {99'999, "0.099"},  {100'000, "0.10"},
               {248'000, "0.24"},  {999'999, "0.99"},
               {1'000'000, "1.0"}, {1'870'000, "1.8"},
               {9'999'999, "9.9"}, {10'000'000, "10"},
               {58'900'000, "58"}, {1'234'567'890'123, "1234567"},
               {-5, "0"}};
  for (const auto& c : cases) {
    Line line;
    FormatTraceMs(c.ns, &line.out);
    ExpectText(line.text, c.text);
  }
}

Test(trace, gc_line) {
  GcTrace t;
  t.cycle = 7;
  t.start = 3'412'999'999;
  t.gc_share = 0.0499;
  t.first_stop = 31'000;
  t.mark = 58'999'999;
  t.second_stop = 44'999;
  t.stop_procs = 8;
  t.assist = 1'800'000;
  t.workers = 55'000'000;
  t.idle = 12'000'000;
  t.live_at_start = 62 * kMiB - 1;
  t.live_at_end = 66 * kMiB;
  t.marked = 34 * kMiB + 1;
  t.goal = 68 * kMiB;
  t.stacks = 1 * kMiB;
  t.globals = 2 * kMiB;
  t.procs = 10;
  Line line, forced;
  FormatGcTrace(t, &line.out);
  ExpectText(line.text,
             "gc 7 @3.412s 4%: 0.031+58+0.044 ms clock, 0.24+1.8/55/12+0.35 ms cpu, "
             "61->66->34 MB, 68 MB goal, 1 MB stacks, 2 MB globals, 10 P\n");
  t.forced = true;
  FormatGcTrace(t, &forced.out);
  const char end[] = " 10 P (forced)\n";
  cr_expect(strcmp(forced.text + forced.out.length() - strlen(end), end) == 0, "%s", forced.text);
}

Test(trace, pacer_lines) {
  Line start, end;
  FormatPacerStart({1.402331, 12 * kMiB, 24 * kMiB, 40 * kMiB, 2, 0.0}, &start.out);
  ExpectText(start.text,
             "pacer: assist ratio=+1.402331e+000 (scan 12 MB in 24->40 MB) "
             "workers=2++0.000000e+000\n");
  PacerEndTrace t;
  t.utilization = 0.2799;
  t.work = {9437184, 8192, 131072};
  t.expected_work = 9700000;
  t.triggered = 33554432;
  t.heap_live = 36175872;
  t.goal = 38273024;
  t.cons_mark = 0.11;
  FormatPacerEnd(t, &end.out);
  ExpectText(end.text,
             "pacer: 27% CPU (25 exp.) for 9437184+8192+131072 B work (9700000 B exp.) in "
             "33554432 B -> 36175872 B (\xe2\x88\x86goal -2097152, cons/mark +1.100000e-001)\n");
  t.goal = 36175871;
  Line above;
  FormatPacerEnd(t, &above.out);
  cr_expect(strstr(above.text, "goal 1, cons") != nullptr, "%s", above.text);
  t.goal = t.heap_live;
  Line exact;
  FormatPacerEnd(t, &exact.out);
  cr_expect(strstr(exact.text, "goal 0, cons") != nullptr, "%s", exact.text);
}

Test(trace, scavenge_lines) {
  Line line, forced, reset, empty;
  ScavengeTrace t;
  t.background = 2 * kMiB + 1023;
  t.eager = 5 * kKiB;
  t.released = 18240 * kKiB;
  t.in_use = 7 * kMiB;
  t.retained = 8 * kMiB;
  FormatScavenge(t, &line.out);
  ExpectText(line.text, "scav 2048 KiB work (bg), 5 KiB work (eager), 18240 KiB now, 87% util\n");
  t.reset = true;
  FormatScavenge(t, &reset.out);
  cr_expect(strstr(reset.text, "87% util [controller reset]\n") != nullptr, "%s", reset.text);
  t.forced = true;  // the more important news
  FormatScavenge(t, &forced.out);
  cr_expect(strstr(forced.text, "87% util (forced)\n") != nullptr, "%s", forced.text);
  FormatScavenge({}, &empty.out);  // nothing retained: no division by it
  cr_expect(strstr(empty.text, " 100% util\n") != nullptr, "%s", empty.text);
}

Test(trace, the_longest_lines_fit) {
  GcTrace gc;
  gc.cycle = gc.live_at_start = gc.live_at_end = gc.marked = gc.goal = UINT64_MAX;
  gc.stacks = gc.globals = UINT64_MAX;
  gc.start = gc.first_stop = gc.mark = gc.second_stop = gc.assist = gc.workers = gc.idle =
      INT64_MAX;
  gc.gc_share = 1;
  gc.procs = INT32_MAX;
  gc.forced = true;
  PacerStartTrace start = {-1e-300, UINT64_MAX, UINT64_MAX, UINT64_MAX, INT32_MAX, -1e-300};
  PacerEndTrace end;
  end.work = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
  end.expected_work = end.triggered = end.heap_live = UINT64_MAX;
  end.goal = uint64_t{1} << 63;
  end.cons_mark = -1e-300;
  ScavengeTrace scav;
  scav.background = scav.eager = scav.released = UINT64_MAX;
  Line lines[4];
  FormatGcTrace(gc, &lines[0].out);
  FormatPacerStart(start, &lines[1].out);
  FormatPacerEnd(end, &lines[2].out);
  FormatScavenge(scav, &lines[3].out);
  for (const Line& line : lines) {
    cr_expect(line.out.length() < sizeof line.text - 1);
    cr_expect(line.text[line.out.length() - 1] == '\n', "%s", line.text);
  }
}
