#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""roundtrip.py FORMAT LOG: every trace line of a Go program must come out of our own formatter
(the program FORMAT) as it went into scripts/gctrace.py, letter by letter."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import gctrace  # noqa: E402  (found by the line above)

MIB = 1 << 20


def ns(ms):
    return round(ms * 1e6)


def fields_for(kind, f):
    if kind == "gc":
        return ["g", f["cycle"], round(f["start_s"] * 1e9), (f["gc_percent"] + 0.5) / 100,
                ns(f["stop1_ms"]), ns(f["mark_ms"]), ns(f["stop2_ms"]), 1, ns(f["assist_cpu_ms"]),
                ns(f["worker_cpu_ms"]), ns(f["idle_cpu_ms"]), f["start_mb"] * MIB,
                f["end_mb"] * MIB, f["marked_mb"] * MIB, f["goal_mb"] * MIB, f["stacks_mb"] * MIB,
                f["globals_mb"] * MIB, f["procs"], int(f["forced"])]
    if kind == "pacer_start":
        return ["s", f["assist_ratio"], f["scan_mb"] * MIB, f["live_mb"] * MIB,
                f["goal_mb"] * MIB, f["dedicated"], f["fractional"]]
    if kind == "pacer_end":
        return ["e", (f["cpu_percent"] + 0.5) / 100, f["heap_work"], f["stack_work"],
                f["globals_work"], f["expected_work"], f["triggered"], f["live"],
                f["live"] - f["goal_delta"], f["cons_mark"]]
    return None


# The CPU time of a stop is more exact than its wall time, from which ours is multiplied.
STOP_CPU = re.compile(r"(?<= ms clock, )[\d.]+(?=\+)|(?<=\+)[\d.]+(?= ms cpu)")


def main():
    format_program, log = sys.argv[1:]
    lines, inputs, kinds = [], [], set()
    with open(log, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            found = gctrace.parse_line(line.rstrip("\n"))
            words = found and fields_for(*found)
            if words:
                kinds.add(found[0])
                lines.append(line)
                inputs.append(" ".join(map(repr, words)).replace("'", ""))
    if len(kinds) < 3:
        sys.exit(f"roundtrip.py: only {sorted(kinds)} in {log}")
    ours = subprocess.run([format_program], input="\n".join(inputs), capture_output=True,
                          text=True, check=True).stdout.splitlines(keepends=True)
    if len(ours) != len(lines):
        sys.exit(f"roundtrip.py: {len(lines)} lines became {len(ours)}")
    for theirs, mine in zip(lines, ours):
        gctrace.parse_line(mine.rstrip("\n"))
        if STOP_CPU.sub("*", theirs) != STOP_CPU.sub("*", mine):
            sys.exit(f"roundtrip.py: {theirs.strip()}\n  became: {mine.strip()}")
    print(len(lines), "lines")


if __name__ == "__main__":
    main()
