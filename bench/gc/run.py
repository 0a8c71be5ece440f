#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the collector: undergo beside bdwgc and Go, in interleaved rounds, and what the
collector costs programs that free what they allocate. Writes bench/results/gc.{md,json,svg}; see
bench/README.md."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(HERE, "..", "..", "scripts")]

import driver
import gcreport
import gctrace
import run as allocator_bench
import runner
import suite

UNDERGO = "gc=on"


@dataclass(frozen=True)
class Row:
    """A program of bench/gc/ with its arguments; `only` restricts who runs it."""

    name: str
    program: str
    arguments: tuple
    quick: tuple
    about: str
    only: tuple = ()
    env: dict = field(default_factory=dict)


ROWS = (
    Row("binary trees", "binary_trees", ("20",), ("16",),
        "perfect trees built, counted, dropped; nothing is freed"),
    Row("graph", "graph", ("16777216",), ("1048576",),
        "a tree of 64-byte nodes: forced marks, in the order of allocation and shuffled"),
    Row("nodes", "nodes", ("16777216", "12"), ("1048576", "2"),
        "a ring of 64-byte nodes: build, forced marks, churn with a cursor"),
    Row("buffers", "buffers", ("1024", "6144"), ("128", "768"),
        "large blocks of random bytes beside small lists that are dropped"),
    Row("server", "server", ("250000", "8"), ("20000", "8"),
        "8 threads, requests, a shared table; a tenth of the requests forget a part"),
    Row("leak", "leak", ("100", "100", "15"), ("100", "100", "3"),
        "100 MiB live, 100 MB each second dropped"),
    Row("leak, limit", "leak", ("100", "100", "15"), ("100", "100", "3"),
        "the same under GOMEMLIMIT=256MiB", only=("undergo",),
        env={"GOMEMLIMIT": "256MiB"}),
)
SUBJECTS = ("undergo", "Go", "bdwgc", "bdwgc incremental")
# The programs of `behaved` take a second, in which the host of a virtual machine may take a tenth
# away: they run several times in each round.
BEHAVED_TIMES = 3
UNKNOWN_PEAK_KB = 512 << 10  # to be warmed before a program has run once
# Programs whose purpose is not to free are no measure of what a collector costs the others.
LEAVES_OUT = ("leak",)
# Programs of tests/preload/ that drop objects and count how many of them the collector finds.
RECALL = (("list", "gc_recall", ("list",)), ("hash", "gc_recall", ("hash",)),
          ("regcomp", "gc_recall", ("regcomp",)), ("C++", "gc_recall_cxx", ()),
          ("libxml2", "gc_recall_xml", ()))


class Session(driver.Session):
    NAME = "gc"
    SUFFIX = {"Go": "-go", "bdwgc": "-bdwgc", "bdwgc incremental": "-bdwgc"}
    LIMIT_SECONDS = 400
    FAILURES = (runner.Failed, gctrace.BadLine)

    def __init__(self, args):
        super().__init__(args, stops={}, behaved={}, recall={}, compat={})
        self.runners = {mode: runner.Runner(args.build, args.quick, "gc=%s,sched=off" % mode)
                        for mode in ("off", "on")}

    def takes_part(self, row, subject):
        return (not row.only or subject in row.only) and super().takes_part(row, subject)

    def checksum_key(self, row):
        return row.program

    @staticmethod
    def headline(figures):
        return "%.2f s, stop %.2f ms" % (figures["wall_s"], figures["longest_stop_ms"])

    def run_row(self, row, subject):
        env = {}
        if subject in ("undergo", "Go"):
            env["GODEBUG"] = "gctrace=1"
        if subject == "undergo":
            env["UNDERGO"] = UNDERGO
        if subject == "bdwgc incremental":
            env["GC_ENABLE_INCREMENTAL"] = "1"
        figures, err = self.measure(row, subject, self.environment({**env, **row.env}))
        stops, found = read_stops(row, subject, err, figures)
        self.results["stops"].setdefault(row.name, {}).setdefault(subject, []).extend(stops)
        return {**figures, **found}

    def run_behaved(self, rows):
        """The allocator's workloads with the collector on and off."""
        subject = allocator_bench.Allocator("undergo", self.library, True)
        for row in list(rows):
            missing = self.runners["on"].missing(row)
            if missing:
                driver.say("%s is left out: %s not installed" % (row.name, ", ".join(missing)))
                rows.remove(row)
            else:
                self.runners["on"].prepare(row)
        wanted, peak = {}, {}
        for number in range(self.results["rounds"]):
            for position, row in enumerate(rows):
                order = ("on", "off") if (number + position) % 2 else ("off", "on")
                line = []
                for mode in order * BEHAVED_TIMES:
                    self.warm_up(peak.get(row.name, UNKNOWN_PEAK_KB))
                    try:
                        figures = self.runners[mode].run(row, subject)
                        if figures["checksum"] != wanted.setdefault(row.name, figures["checksum"]):
                            raise runner.Failed("another result than the first run's")
                    except runner.Failed as failure:
                        self.fail(row.name, "gc=" + mode, str(failure))
                        continue
                    self.results["behaved"].setdefault(row.name, {}).setdefault(
                        mode, []).append(figures)
                    peak[row.name] = max(peak.get(row.name, 0), figures["rss_kb"])
                    line.append("%s %.2f s" % (mode, figures["cpu_s"]))
                driver.say("round %d/%d %-16s %s" % (number + 1, self.results["rounds"], row.name,
                                              "  ".join(sorted(line))))

    def run_recall(self):
        for name, program, arguments in RECALL:
            path = os.path.join(self.build, "tests", "preload", program)
            env = self.environment({"GOGC": "off", "LD_PRELOAD": self.library,
                                    "UNDERGO": UNDERGO})
            done = subprocess.run([path, *arguments], env=env, capture_output=True, text=True,
                                  check=False)
            found = re.search(r": (\d+) of (\d+) dropped objects found", done.stderr)
            if done.returncode == 77:
                driver.say("recall, %s: left out, %s" % (name, done.stdout.strip()))
            elif done.returncode != 0 or not found:
                self.fail("recall, " + name, "undergo", done.stderr.strip()[-200:])
            else:
                self.results["recall"][name] = [int(n) for n in found.groups()]
                driver.say("recall %-9s %s of %s" % (name, *found.groups()))

    def run_compat(self, corpus):
        """The corpus' leaking programs: peak RSS beside what was live after the largest mark."""
        run = os.path.join(corpus, "run")
        if not os.access(run, os.X_OK):
            driver.say("no corpus at %s, so its leaking programs are left out (--compat DIR)" % corpus)
            return
        folder = os.path.join(self.bin, "data", "compat-%d" % os.getpid())
        os.makedirs(folder, exist_ok=True)
        only = "leak-json" if self.quick else "kind=leaky"
        listed = subprocess.run([run, "--list", "--only", only], capture_output=True, text=True,
                                check=False).stdout
        for name in dict.fromkeys(re.findall(r"\bleak-[a-z0-9-]+", listed)):
            log, result = os.path.join(folder, name + ".log"), os.path.join(folder, name + ".json")
            subprocess.run([run, "--so", self.library, "--only", name, "--json", result,
                            "--env", "UNDERGO=%s,log=%s" % (UNDERGO, log),
                            "--env", "GODEBUG=gctrace=1"], capture_output=True, check=False)
            self.read_compat(name, log, result)

    def read_compat(self, name, log, result):
        try:
            with open(result, encoding="utf-8") as file:
                case = json.load(file)["cases"][0]
            if case["verdict"] == "skip":
                return driver.say("%s is left out: %s" % (name, case["note"]))
            if case["verdict"] != "ok":
                raise runner.Failed("%s %s" % (case["verdict"], case.get("note") or ""))
            with open(log, encoding="utf-8", errors="replace") as file:
                live = [fields["marked_mb"] for kind, fields in gctrace.parse(file) if kind == "gc"]
            rss = [case[run]["rss_kb"] / 1024 for run in ("native", "preload")]
        except (OSError, KeyError, IndexError, TypeError, gctrace.BadLine, runner.Failed) as failure:
            return self.fail(name, "undergo", str(failure))
        found = {"native_mb": rss[0], "rss_mb": rss[1], "live_mb": max(live, default=0)}
        self.results["compat"][name] = found
        return driver.say("%-18s native %.0f MB, undergo %.0f MB, live %d MB"
                   % (name, rss[0], rss[1], found["live_mb"]))


def read_stops(row, subject, text, figures):
    """All stops of a run, and what its traces say about the heap and the collector's share."""
    found, stops = {"longest_stop_ms": 0.0}, []
    if subject.startswith("bdwgc"):
        stops = [float(ms) for ms in re.findall(r"^stop (\S+)$", text, re.M)]
        if figures["wall_s"] > 0:
            found["gc_percent"] = sum(stops) / 10 / figures["wall_s"]
        found["cycles"] = int(figures["metrics"].get("collections", 0))
        after_forced = stops
    else:
        cycles = [fields for kind, fields in gctrace.parse(text.splitlines(True)) if kind == "gc"]
        own = [c for c in cycles if not c["forced"]]
        over = [c["end_mb"] / c["goal_mb"] - 1 for c in own if c["goal_mb"] >= 16]
        stops = [c[stop] for c in cycles for stop in ("stop1_ms", "stop2_ms")]
        found["cycles"] = len(cycles)
        found["gc_percent"] = cycles[-1]["gc_percent"] if cycles else 0
        found["over_goal_percent"] = 100 * max(over) if over else None
        last = max((c["cycle"] for c in cycles if c["forced"]), default=0)
        after_forced = [c[stop] for c in cycles if c["cycle"] > last
                        for stop in ("stop1_ms", "stop2_ms")]
    if stops:
        found["longest_stop_ms"] = max(stops)
    if row.program == "nodes" and after_forced:
        found["longest_stop_in_churn_ms"] = max(after_forced)
    return stops, found


def main():
    names = [row.name for row in ROWS] + ["recall", "compat", "behaved"]
    options = driver.Options(__doc__, names, SUBJECTS, "gc", "nodes")
    options.add_argument("--compat", metavar="DIR", default="../shared/compat",
                         help="the compatibility corpus (default: ../shared/compat)")
    options.add_argument("--workloads", metavar="NAME,...", default="",
                         help="of the part `behaved` only these, with wildcards")
    args = options.read()
    behaved = [row for row in suite.ROWS if row.name not in LEAVES_OUT]
    if args.workloads:
        wanted = args.workloads.split(",")
        behaved = [row for row in behaved if any(fnmatch.fnmatch(row.name, w) for w in wanted)]
        if not behaved or args.chosen != ["behaved"]:
            options.error("--workloads '%s': accepted are names of workloads, with --only behaved"
                          % args.workloads)
    session = Session(args)
    machine = driver.describe_machine(args, UNDERGO, "UNDERGO=" + UNDERGO)
    machine["bdwgc"] = allocator_bench.package_version(
        runner.find_library("libgc.so.1")) or "not installed"
    session.results["machine"] = machine
    parts = {"recall": session.run_recall, "compat": lambda: session.run_compat(args.compat),
             "behaved": lambda: session.run_behaved(behaved)}
    rows = [row for row in ROWS if row.name in args.chosen]
    return driver.execute(
        args, session, [lambda: session.run_rows(rows, args.subjects)]
        + [run for name, run in parts.items() if name in args.chosen],
        lambda results: gcreport.Summary(results, {row.name: row.about for row in ROWS}))


if __name__ == "__main__":
    sys.exit(main())
