// SPDX-License-Identifier: Apache-2.0
// Trace lines of the collector. Two of their number formats are Go's own: floats as its print
// statement shows them, and times in milliseconds that are cut, not rounded, to two digits.
//
// The digits of a float are made by repeated division, as Go makes them: a correctly rounded
// conversion would differ in the last digit now and then.

#include "gc/trace.h"

namespace undergo::gc {
namespace {

constexpr int kFloatDigits = 7;
constexpr double kHalfOfLastDigit = 5e-7;

uint64_t AtLeastZero(int64_t v) { return v > 0 ? static_cast<uint64_t>(v) : 0; }

uint64_t Mib(uint64_t bytes) { return bytes / kMiB; }

void FormatInt(int64_t v, Fmt* out) {
  if (v < 0) out->Char('-');
  out->Dec(v < 0 ? 0 - static_cast<uint64_t>(v) : static_cast<uint64_t>(v));
}

int ToPercent(double share) { return static_cast<int>(share * 100); }

}  // namespace

void FormatGoFloat(double v, Fmt* out) {
  if (__builtin_isnan(v)) {
    out->Str("NaN");
    return;
  }
  out->Char(__builtin_signbit(v) ? '-' : '+');
  if (__builtin_signbit(v)) v = -v;
  if (__builtin_isinf(v)) {
    out->Str("Inf");
    return;
  }
  int exponent = 0;
  if (v != 0) {
    for (; v >= 10; v /= 10) exponent++;
    for (; v < 1; v *= 10) exponent--;
    v += kHalfOfLastDigit;
    if (v >= 10) {
      v /= 10;
      exponent++;
    }
  }
  for (int i = 0; i < kFloatDigits; i++) {
    int digit = static_cast<int>(v);
    v = (v - digit) * 10;
    out->Char(static_cast<char>('0' + digit));
    if (i == 0) out->Char('.');
  }
  out->Char('e').Char(exponent < 0 ? '-' : '+');
  int e = exponent < 0 ? -exponent : exponent;
  for (int unit = 100; unit > 0; unit /= 10) out->Char(static_cast<char>('0' + e / unit % 10));
}

void FormatTraceMs(int64_t signed_ns, Fmt* out) {
  uint64_t ns = AtLeastZero(signed_ns);
  if (ns >= 10'000'000) {
    out->Dec(ns / 1'000'000);
    return;
  }
  uint64_t us = ns / 1000;
  if (us == 0) {
    out->Dec(0);
  } else if (us < 100) {
    out->Fixed(us, 3);
  } else {
    out->Fixed(us, us < 1000 ? 2 : 1);
  }
}

void FormatGcTrace(const GcTrace& t, Fmt* out) {
  auto ms = [out](int64_t ns) -> Fmt& {
    FormatTraceMs(ns, out);
    return *out;
  };
  out->Str("gc ").Dec(t.cycle).Str(" @").Fixed(AtLeastZero(t.start) / 1'000'000, 3).Str("s ");
  FormatInt(ToPercent(t.gc_share), out);
  out->Str("%: ");
  ms(t.first_stop).Char('+');
  ms(t.mark).Char('+');
  ms(t.second_stop).Str(" ms clock, ");
  ms(t.first_stop * t.stop_procs).Char('+');
  ms(t.assist).Char('/');
  ms(t.workers).Char('/');
  ms(t.idle).Char('+');
  ms(t.second_stop * t.stop_procs).Str(" ms cpu, ");
  out->Dec(Mib(t.live_at_start)).Str("->").Dec(Mib(t.live_at_end)).Str("->").Dec(Mib(t.marked));
  out->Str(" MB, ").Dec(Mib(t.goal)).Str(" MB goal, ");
  out->Dec(Mib(t.stacks)).Str(" MB stacks, ").Dec(Mib(t.globals)).Str(" MB globals, ");
  out->Dec(static_cast<uint64_t>(t.procs)).Str(t.forced ? " P (forced)\n" : " P\n");
}

void FormatPacerStart(const PacerStartTrace& t, Fmt* out) {
  out->Str("pacer: assist ratio=");
  FormatGoFloat(t.work_per_byte, out);
  out->Str(" (scan ").Dec(Mib(t.heap_scan)).Str(" MB in ").Dec(Mib(t.heap_live)).Str("->");
  out->Dec(Mib(t.goal)).Str(" MB) workers=").Dec(static_cast<uint64_t>(t.dedicated)).Char('+');
  FormatGoFloat(t.fractional, out);
  out->Char('\n');
}

void FormatPacerEnd(const PacerEndTrace& t, Fmt* out) {
  out->Str("pacer: ");
  FormatInt(ToPercent(t.utilization), out);
  out->Str("% CPU (").Dec(static_cast<uint64_t>(ToPercent(kBackgroundUtilization)));
  out->Str(" exp.) for ").Dec(t.work.heap).Char('+').Dec(t.work.stack).Char('+');
  out->Dec(t.work.globals).Str(" B work (").Dec(t.expected_work).Str(" B exp.) in ");
  out->Dec(t.triggered).Str(" B -> ").Dec(t.heap_live).Str(" B (\u2206goal ");
  FormatInt(static_cast<int64_t>(t.heap_live - t.goal), out);
  out->Str(", cons/mark ");
  FormatGoFloat(t.cons_mark, out);
  out->Str(")\n");
}

void FormatScavenge(const ScavengeTrace& t, Fmt* out) {
  out->Str("scav ").Dec(t.background / kKiB).Str(" KiB work (bg), ");
  out->Dec(t.eager / kKiB).Str(" KiB work (eager), ").Dec(t.released / kKiB).Str(" KiB now, ");
  out->Dec(t.retained > 0 ? t.in_use * 100 / t.retained : 100).Str("% util");
  out->Str(t.forced ? " (forced)\n" : t.reset ? " [controller reset]\n" : "\n");
}

}  // namespace undergo::gc
