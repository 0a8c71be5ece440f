#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads what GODEBUG=gctrace=1,gcpacertrace=1,scavtrace=1 prints, from Go programs and from ours.

Other lines are skipped, so that a program's whole stderr can be given. A line that begins like a
trace line but is none is an error: this reader is the definition of the formats, number formats
included. Without an option the cycles are summed up; --csv and --json print them all.
"""

import argparse
import csv
import json
import re
import signal
import sys

# Integers without leading zeros; times as two digits cut down to the microsecond, or whole ms.
INT = r"(?:0|[1-9]\d*)"
MS = r"(?:0|0\.00[1-9]|0\.0[1-9]\d|0\.[1-9]\d|[1-9]\.\d|[1-9]\d+)"
FLOAT = r"(?:[+-]\d\.\d{6}e[+-]\d{3}|[+-]Inf|NaN)"


def pattern(text):
    """{name:KIND} becomes a group; everything else stands for itself."""
    kinds = {"INT": INT, "SIGNED": "-?" + INT, "MS": MS, "FLOAT": FLOAT, "SECONDS": INT + r"\.\d{3}"}
    parts = re.split(r"\{(\w+):(\w+)\}", text)
    made = re.escape(parts[0])
    for i in range(1, len(parts), 3):
        made += f"(?P<{parts[i]}>{kinds[parts[i + 1]]})" + re.escape(parts[i + 2])
    return made


GC = re.compile(pattern(
    "gc {cycle:INT} @{start_s:SECONDS}s {gc_percent:INT}%: "
    "{stop1_ms:MS}+{mark_ms:MS}+{stop2_ms:MS} ms clock, "
    "{stop1_cpu_ms:MS}+{assist_cpu_ms:MS}/{worker_cpu_ms:MS}/{idle_cpu_ms:MS}+{stop2_cpu_ms:MS}"
    " ms cpu, {start_mb:INT}->{end_mb:INT}->{marked_mb:INT} MB, {goal_mb:INT} MB goal, "
    "{stacks_mb:INT} MB stacks, {globals_mb:INT} MB globals, {procs:INT} P")
    + r"(?P<forced> \(forced\))?")
PACER_START = re.compile(pattern(
    "pacer: assist ratio={assist_ratio:FLOAT} (scan {scan_mb:INT} MB in {live_mb:INT}->"
    "{goal_mb:INT} MB) workers={dedicated:INT}+{fractional:FLOAT}"))
PACER_END = re.compile(pattern(
    "pacer: {cpu_percent:INT}% CPU ({cpu_expected:INT} exp.) for {heap_work:INT}+{stack_work:INT}+"
    "{globals_work:INT} B work ({expected_work:INT} B exp.) in {triggered:INT} B -> "
    "{live:INT} B (\u2206goal {goal_delta:SIGNED}, cons/mark {cons_mark:FLOAT})"))
SCAV = re.compile(pattern(
    "scav {background_kib:INT} KiB work (bg), {eager_kib:INT} KiB work (eager), "
    "{released_kib:INT} KiB now, {util_percent:INT}% util")
    + r"(?P<note> \(forced\)| \[controller reset\])?")
# Up to Go 1.20.
OLD_SCAV = re.compile(pattern(
    "scav {background_kib:INT} KiB work, {released_kib:INT} KiB total, {util_percent:INT}% util")
    + r"(?P<note> \(forced\)| \[controller reset\])?")
KINDS = (("gc", "gc ", (GC,)), ("pacer_start", "pacer: assist", (PACER_START,)),
         ("pacer_end", "pacer: ", (PACER_END,)), ("scav", "scav ", (SCAV, OLD_SCAV)),
         ("timed", "GC forced", (re.compile("GC forced"),)))


class BadLine(Exception):
    """A line that should have been one of ours."""


def value(name, text):
    if name == "forced":
        return text is not None
    if name == "note":
        return (text or "").strip(" ()[]")
    if re.fullmatch("-?" + INT, text):
        return int(text)
    return float(text)


def parse_line(line):
    """(kind, fields), or None for a line that is no trace."""
    for kind, start, patterns in KINDS:
        if not line.startswith(start):
            continue
        for p in patterns:
            found = p.fullmatch(line)
            if found:
                return kind, {name: value(name, text) for name, text in found.groupdict().items()}
        raise BadLine(line)
    return None


def parse(lines):
    for line in lines:
        found = parse_line(line.rstrip("\n"))
        if found:
            yield found


def check_sequence(records):
    """What holds between the lines of one process, as text; empty if all does."""
    faults, cycle, start = [], 0, 0.0
    for kind, f in records:
        if kind != "gc":
            continue
        where = f"cycle {f['cycle']}"
        if f["cycle"] != cycle + 1:
            faults.append(f"{where} follows cycle {cycle}")
        if f["start_s"] < start:
            faults.append(f"{where} starts before its predecessor")
        # Both are cut to two digits, and the stops may use fewer CPUs than there are.
        for stop in ("stop1", "stop2"):
            if f[stop + "_cpu_ms"] > 1.12 * f["procs"] * (f[stop + "_ms"] + 0.001):
                faults.append(f"{where}: {stop} takes more CPU time than there is")
        cycle, start = f["cycle"], f["start_s"]
    return faults


def summary(records):
    cycles = [f for kind, f in records if kind == "gc"]
    if not cycles:
        return {"cycles": 0}
    stops = sorted(f[s] for f in cycles for s in ("stop1_ms", "stop2_ms"))
    over = [f["end_mb"] / f["goal_mb"] for f in cycles if f["goal_mb"] > 0]
    return {
        "cycles": len(cycles),
        "forced": sum(f["forced"] for f in cycles),
        "seconds": cycles[-1]["start_s"],
        "gc_percent": cycles[-1]["gc_percent"],
        "stop_median_ms": stops[len(stops) // 2],
        "stop_max_ms": stops[-1],
        "mark_max_ms": max(f["mark_ms"] for f in cycles),
        "heap_peak_mb": max(f["end_mb"] for f in cycles),
        "marked_max_mb": max(f["marked_mb"] for f in cycles),
        "end_over_goal_max": round(max(over), 3) if over else None,
        "assist_cpu_ms": round(sum(f["assist_cpu_ms"] for f in cycles), 3),
        "worker_cpu_ms": round(sum(f["worker_cpu_ms"] for f in cycles), 3),
        "idle_cpu_ms": round(sum(f["idle_cpu_ms"] for f in cycles), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="default: standard input")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help="one row for each cycle")
    shape.add_argument("--json", action="store_true", help="every trace line")
    parser.add_argument("--check", action="store_true",
                        help="of one process: cycles must follow each other")
    args = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with (open(args.file, encoding="utf-8", errors="replace") if args.file
              else open(0, encoding="utf-8", errors="replace")) as stream:
            records = list(parse(stream))
    except OSError as error:
        sys.exit(f"gctrace.py: {error}")
    except BadLine as error:
        sys.exit(f"gctrace.py: not in Go's format: {error}")
    if args.check:
        faults = check_sequence(records)
        if faults:
            sys.exit("gctrace.py: " + "; ".join(faults[:5]))
    if args.json:
        json.dump([{"kind": kind, **f} for kind, f in records], sys.stdout, indent=1)
        print()
    elif args.csv:
        rows = [f for kind, f in records if kind == "gc"]
        names = rows[0] if rows else GC.groupindex
        writer = csv.DictWriter(sys.stdout, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        for name, v in summary(records).items():
            print(f"{name:20} {v}")


if __name__ == "__main__":
    main()
