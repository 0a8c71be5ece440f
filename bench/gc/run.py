#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the collector: undergo beside bdwgc and Go, in interleaved rounds, and what the
collector costs programs that free what they allocate. Writes bench/results/gc.{md,json,svg}; see
bench/README.md."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(HERE, "..", "..", "scripts")]

import gcreport
import gctrace
import run as allocator_bench
import runner
import suite

LIMIT_SECONDS = 400
UNDERGO = "gc=on,sched=off"
FORCED = 6  # forced collections of `nodes` before its churn begins


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
    Row("nodes", "nodes", ("16777216", "8"), ("1048576", "2"),
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
SUFFIX = {"undergo": "", "Go": "-go", "bdwgc": "-bdwgc", "bdwgc incremental": "-bdwgc"}
# Programs whose purpose is not to free are no measure of what a collector costs the others.
LEAVES_OUT = ("leak",)
# Programs of tests/preload/ that drop objects and count how many of them the collector finds.
RECALL = (("list", "gc_recall", ("list",)), ("hash", "gc_recall", ("hash",)),
          ("regcomp", "gc_recall", ("regcomp",)), ("C++", "gc_recall_cxx", ()),
          ("libxml2", "gc_recall_xml", ()))


def say(text):
    sys.stderr.write("bench: %s\n" % text)
    sys.stderr.flush()


class Session:
    def __init__(self, args):
        self.quick = args.quick
        self.build = os.path.abspath(args.build)
        self.bin = os.path.join(self.build, "bench")
        self.library = os.path.join(self.build, "libundergo.so")
        self.runners = {mode: runner.Runner(args.build, args.quick, "gc=%s,sched=off" % mode)
                        for mode in ("off", "on")}
        self.results = {"quick": args.quick, "rounds": args.rounds, "runs": {}, "stops": {},
                        "behaved": {}, "recall": {}, "compat": {}, "wrong": []}
        self.checksums = {}

    def program(self, row, subject):
        path = os.path.join(self.bin, "gc", row.program + SUFFIX[subject])
        return path if os.path.exists(path) else None

    def environment(self, row, subject):
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
        if subject in ("undergo", "Go"):
            env["GODEBUG"] = "gctrace=1"
        if subject == "undergo":
            env["UNDERGO"] = UNDERGO
        if subject == "bdwgc incremental":
            env["GC_ENABLE_INCREMENTAL"] = "1"
        env.update(row.env)
        return env

    def warm_up(self, kilobytes):
        """As in the allocator's benchmark: the host backs memory before it is measured."""
        megabytes = min(kilobytes // 1024 + 64, allocator_bench.available_megabytes() // 2)
        subprocess.run([os.path.join(self.bin, "warm"), str(megabytes)], check=False)

    def run_once(self, row, subject):
        result = os.path.join(self.bin, "data", "measured-gc-%d" % os.getpid())
        arguments = row.quick if self.quick else row.arguments
        command = [os.path.join(self.bin, "measure"), result,
                   self.library if subject == "undergo" else "", self.program(row, subject),
                   *arguments]
        process = subprocess.Popen(command, env=self.environment(row, subject),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = process.communicate(timeout=LIMIT_SECONDS)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(reason, subprocess.TimeoutExpired):
                raise runner.Failed("no end after %d s" % LIMIT_SECONDS) from None
            raise
        figures = runner.read_figures(result, err)
        figures["metrics"], figures["checksum"] = {}, ""
        for line in out.decode().splitlines():
            words = line.split()
            if words[0] == "metric":
                figures["metrics"][words[1]] = float(words[2])
            else:
                figures["checksum"] = words[-1]
        figures.update(read_stops(row, subject, err.decode("utf-8", "replace"), figures))
        return figures

    def run_rows(self, rows, subjects):
        peak = {}
        for number in range(self.results["rounds"]):
            for position, row in enumerate(rows):
                shift = (number + position) % len(subjects)
                line = []
                for subject in subjects[shift:] + subjects[:shift]:
                    if row.only and subject not in row.only or not self.program(row, subject):
                        continue
                    self.warm_up(peak.get(row.name, 0))
                    try:
                        figures = self.run_once(row, subject)
                        wanted = self.checksums.setdefault(row.program, figures["checksum"])
                        if figures["checksum"] != wanted:
                            raise runner.Failed("another result than the first program's")
                    except (runner.Failed, gctrace.BadLine) as failure:
                        self.fail(row.name, subject, str(failure))
                        continue
                    peak[row.name] = max(peak.get(row.name, 0), figures["rss_kb"])
                    stops = figures.pop("stops")
                    self.results["stops"].setdefault(row.name, {}).setdefault(
                        subject, []).extend(stops)
                    self.results["runs"].setdefault(row.name, {}).setdefault(
                        subject, []).append(figures)
                    line.append("%s %.2f s, stop %.2f ms" % (subject, figures["wall_s"],
                                                             figures["longest_stop_ms"]))
                say("round %d/%d %-13s %s" % (number + 1, self.results["rounds"], row.name,
                                              "; ".join(line)))

    def run_behaved(self, rows):
        """The allocator's workloads with the collector on and off."""
        subject = allocator_bench.Allocator("undergo", self.library, True)
        for row in list(rows):
            missing = self.runners["on"].missing(row)
            if missing:
                say("%s is left out: %s not installed" % (row.name, ", ".join(missing)))
                rows.remove(row)
            else:
                self.runners["on"].prepare(row)
        wanted = {}
        for number in range(self.results["rounds"]):
            for position, row in enumerate(rows):
                order = ("on", "off") if (number + position) % 2 else ("off", "on")
                line = []
                for mode in order:
                    try:
                        figures = self.runners[mode].run(row, subject)
                        if figures["checksum"] != wanted.setdefault(row.name, figures["checksum"]):
                            raise runner.Failed("another result than the first run's")
                    except runner.Failed as failure:
                        self.fail(row.name, "gc=" + mode, str(failure))
                        continue
                    self.results["behaved"].setdefault(row.name, {}).setdefault(
                        mode, []).append(figures)
                    line.append("%s %.2f s" % (mode, figures["cpu_s"]))
                say("round %d/%d %-16s %s" % (number + 1, self.results["rounds"], row.name,
                                              "  ".join(sorted(line))))

    def run_recall(self):
        for name, program, arguments in RECALL:
            path = os.path.join(self.build, "tests", "preload", program)
            env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "GOGC": "off",
                   "LD_PRELOAD": self.library, "UNDERGO": UNDERGO}
            done = subprocess.run([path, *arguments], env=env, capture_output=True, text=True,
                                  check=False)
            found = re.search(r": (\d+) of (\d+) dropped objects found", done.stderr)
            if done.returncode == 77:
                say("recall, %s: left out, %s" % (name, done.stdout.strip()))
            elif done.returncode != 0 or not found:
                self.fail("recall, " + name, "undergo", done.stderr.strip()[-200:])
            else:
                self.results["recall"][name] = [int(n) for n in found.groups()]
                say("recall %-9s %s of %s" % (name, *found.groups()))

    def run_compat(self, corpus):
        """The corpus' leaking programs: peak RSS beside what was live after the largest mark."""
        run = os.path.join(corpus, "run")
        if not os.access(run, os.X_OK):
            say("no corpus at %s, so its leaking programs are left out (--compat DIR)" % corpus)
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
                return say("%s is left out: %s" % (name, case["note"]))
            if case["verdict"] != "ok":
                raise runner.Failed("%s %s" % (case["verdict"], case.get("note") or ""))
            with open(log, encoding="utf-8", errors="replace") as file:
                live = [fields["marked_mb"] for kind, fields in gctrace.parse(file) if kind == "gc"]
            rss = [case[run]["rss_kb"] / 1024 for run in ("native", "preload")]
        except (OSError, KeyError, IndexError, TypeError, gctrace.BadLine, runner.Failed) as failure:
            return self.fail(name, "undergo", str(failure))
        found = {"native_mb": rss[0], "rss_mb": rss[1], "live_mb": max(live, default=0)}
        self.results["compat"][name] = found
        return say("%-18s native %.0f MB, undergo %.0f MB, live %d MB"
                   % (name, rss[0], rss[1], found["live_mb"]))

    def fail(self, row, subject, message):
        say("WRONG: %s under %s: %s" % (row, subject, message))
        self.results["wrong"].append({"row": row, "subject": subject, "message": message})


def read_stops(row, subject, text, figures):
    """All stops of a run, and what its traces say about the heap and the collector's share."""
    found = {"longest_stop_ms": 0.0, "stops": []}
    if subject.startswith("bdwgc"):
        found["stops"] = [float(ms) for ms in re.findall(r"^stop (\S+)$", text, re.M)]
        if figures["wall_s"] > 0:
            found["gc_percent"] = sum(found["stops"]) / 10 / figures["wall_s"]
        found["cycles"] = int(figures["metrics"].get("collections", 0))
        after_forced = found["stops"]
    else:
        cycles = [fields for kind, fields in gctrace.parse(text.splitlines(True)) if kind == "gc"]
        own = [c for c in cycles if not c["forced"]]
        over = [c["end_mb"] / c["goal_mb"] - 1 for c in own if c["goal_mb"] >= 16]
        found["stops"] = [c[stop] for c in cycles for stop in ("stop1_ms", "stop2_ms")]
        found["cycles"] = len(cycles)
        found["gc_percent"] = cycles[-1]["gc_percent"] if cycles else 0
        found["over_goal_percent"] = 100 * max(over) if over else None
        last = max((c["cycle"] for c in cycles if c["forced"]), default=0)
        after_forced = [c[stop] for c in cycles if c["cycle"] > last
                        for stop in ("stop1_ms", "stop2_ms")]
    if found["stops"]:
        found["longest_stop_ms"] = max(found["stops"])
    if row.program == "nodes" and after_forced:
        found["longest_stop_in_churn_ms"] = max(after_forced)
    return found


def describe_machine(args):
    class Inputs:
        quick, undergo_env = args.quick, UNDERGO
    machine = allocator_bench.describe_machine(Inputs, [])
    machine["undergo"] = "UNDERGO=" + UNDERGO
    machine["bdwgc"] = allocator_bench.package_version(
        runner.find_library("libgc.so.1")) or "not installed"
    go = shutil.which("go")
    machine["Go"] = (subprocess.run([go, "version"], capture_output=True, text=True, check=False)
                     .stdout.split()[2] if go else "not installed")
    return machine


def parse_arguments():
    parser = allocator_bench.Parser(description=__doc__)
    parser.add_argument("--build", default="build", help="build directory (default: build)")
    parser.add_argument("--rounds", type=int, help="rounds (default: 3, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="smaller inputs, one round")
    parser.add_argument("--only", default="", metavar="NAME,...",
                        help="only these of: %s, behaved, recall, compat" % ", ".join(row.name for row in ROWS))
    parser.add_argument("--subjects", default=",".join(SUBJECTS), metavar="NAME,...",
                        help="of %s" % ", ".join(SUBJECTS))
    parser.add_argument("--compat", metavar="DIR", default="../shared/compat",
                        help="the compatibility corpus (default: ../shared/compat)")
    parser.add_argument("--output", metavar="DIR",
                        help="folder for results (default: bench/results for a full run, else "
                             "BUILD/bench/results)")
    args = parser.parse_args()
    if args.rounds is None:
        args.rounds = 1 if args.quick else 3
    if args.rounds < 1:
        parser.error("--rounds %d: accepted is a number from 1" % args.rounds)
    names = [row.name for row in ROWS] + ["behaved", "recall", "compat"]
    args.chosen = re.split(",(?! *limit) *", args.only) if args.only else names
    for name in args.chosen:
        if name not in names:
            parser.error("--only '%s': accepted are %s" % (name, "; ".join(names)))
    args.subjects = tuple(args.subjects.split(","))
    for name in args.subjects:
        if name not in SUBJECTS:
            parser.error("--subjects '%s': accepted are %s" % (name, ", ".join(SUBJECTS)))
    if not os.path.exists(os.path.join(args.build, "bench", "gc", "nodes")):
        parser.error("--build '%s': run `make bench-gc-build` first" % args.build)
    return args


def main():
    args = parse_arguments()
    session = Session(args)
    session.results["machine"] = describe_machine(args)
    full = not args.quick and not args.only and args.subjects == SUBJECTS
    folder = args.output or ("bench/results" if full
                             else os.path.join(args.build, "bench", "results"))
    interrupted = False
    try:
        session.run_rows([row for row in ROWS if row.name in args.chosen], args.subjects)
        if "recall" in args.chosen:
            session.run_recall()
        if "compat" in args.chosen:
            session.run_compat(args.compat)
        if "behaved" in args.chosen:
            session.run_behaved([row for row in suite.ROWS if row.name not in LEAVES_OUT])
    except KeyboardInterrupt:
        interrupted = True
    summary = gcreport.Summary(session.results, {row.name: row.about for row in ROWS})
    problem = summary.write(folder)
    if problem:
        say(problem)
    print(summary.text())
    for entry in session.results["wrong"]:
        print("WRONG: %(row)s under %(subject)s: %(message)s" % entry)
    say("results are in %s" % folder)
    if interrupted:
        return 130
    return 1 if session.results["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
