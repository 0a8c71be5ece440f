#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark suite in interleaved rounds and writes bench/results/. See bench/README.md."""

import argparse
import datetime
import fnmatch
import os
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass

sys.dont_write_bytecode = True  # leave no __pycache__ beside the sources

import report
import runner
import suite

BASELINE = "jemalloc"
SUBJECT = "undergo"
# On a machine with neighbours five rounds do not settle a row: the two that are compared run on until
# their medians are known to a few percent, whatever these are.
EXTRA_ROUNDS = 8
SETTLED = 0.03
AB_ROWS = "hotpair,bignum,solver,churn,batch-lifo,server,pipeline,mailbox,containers,phases"
PEERS = {"jemalloc": "libjemalloc.so.2", "mimalloc": "libmimalloc.so.2*",
         "tcmalloc": "libtcmalloc_minimal.so.4"}


@dataclass(frozen=True)
class Allocator:
    name: str
    path: str  # what is preloaded; empty for the native run
    is_undergo: bool = False


class Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.stderr.write("bench: %s (see run.py --help)\n" % message)
        sys.exit(2)


def parse_arguments():
    parser = Parser(description=__doc__)
    parser.add_argument("--build", default="build", help="build directory (default: build)")
    parser.add_argument("--rounds", type=int, help="rounds (default: 5, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="smaller inputs, one round")
    parser.add_argument("--only", default="", metavar="NAME,...",
                        help="only these workloads, with wildcards; also: own, real, startup, fork")
    parser.add_argument("--allocators", default="", metavar="NAME,...",
                        help="of glibc, jemalloc, mimalloc, tcmalloc, undergo and the added ones")
    parser.add_argument("--ab", nargs=2, metavar=("A.so", "B.so"),
                        help="compare two builds of undergo over some workloads, as B to A")
    parser.add_argument("--demo", action="store_true",
                        help="redis and python once, natively, under jemalloc and under undergo")
    parser.add_argument("--undergo-env", default="gc=off,sched=off", metavar="TEXT",
                        help="value of UNDERGO for undergo's runs (default: %(default)s)")
    parser.add_argument("--output", metavar="DIR",
                        help="folder for results (default: bench/results for a full run, else "
                             "BUILD/bench/results)")
    parser.add_argument("--list", action="store_true", help="list the workloads and end")
    parser.add_argument("extra", nargs="*", metavar="NAME=PATH",
                        help="further libraries to preload")
    args = parser.parse_args()
    if args.demo:
        args.only, args.rounds = args.only or "redis,python", args.rounds or 1
    if args.rounds is None:
        args.rounds = 1 if args.quick else 5
    if args.rounds < 1:
        parser.error("--rounds %d: accepted is a number from 1" % args.rounds)
    for text in args.extra:
        if not re.fullmatch(r"[\w.+-]+=.+", text) or not os.path.exists(text.partition("=")[2]):
            parser.error("'%s': accepted is NAME=PATH of an existing library" % text)
    for path in args.ab or []:
        if not os.path.exists(path):
            parser.error("--ab '%s': no such library" % path)
    return parser, args


def choose_allocators(parser, args):
    if args.ab:
        return [Allocator("A", os.path.abspath(args.ab[0]), True),
                Allocator("B", os.path.abspath(args.ab[1]), True)]
    found = [Allocator("glibc", "")]
    for name, pattern in PEERS.items():
        path = runner.find_library(pattern)
        if path:
            found.append(Allocator(name, path))
        else:
            say("%s is not installed and left out" % name)
    ours = os.path.join(os.path.abspath(args.build), "libundergo.so")
    if os.path.exists(ours):
        found.append(Allocator("undergo", ours, True))
    found += [Allocator(text.partition("=")[0], os.path.abspath(text.partition("=")[2]),
                        text.startswith("undergo")) for text in args.extra]
    if args.demo and not args.allocators:
        return [allocator for allocator in found if allocator.name not in ("mimalloc", "tcmalloc")]
    if not args.allocators:
        return found
    known = {allocator.name: allocator for allocator in found}
    names = args.allocators.split(",")
    for name in names:
        if name not in known:
            parser.error("--allocators '%s': accepted are %s" % (name, ", ".join(known)))
    return [known[name] for name in names]


def choose_rows(parser, args):
    """Returns (rows, with start-up case, with fork case)."""
    text = args.only or (AB_ROWS if args.ab else "")
    if not text:
        return list(suite.ROWS), True, True
    chosen, specials = [], set()
    for word in text.split(","):
        if word in ("startup", "fork"):
            specials.add(word)
            continue
        groups = {"own": suite.OWN, "real": suite.REAL}
        matched = groups.get(word) or [row for row in suite.ROWS
                                       if fnmatch.fnmatchcase(row.name, word)]
        if not matched:
            parser.error("--only '%s': accepted are startup, fork, own, real and %s"
                         % (word, ", ".join(row.name for row in suite.ROWS)))
        chosen += [row for row in matched if row not in chosen]
    return chosen, "startup" in specials, "fork" in specials


def say(text):
    sys.stderr.write("bench: %s\n" % text)
    sys.stderr.flush()


class Session:
    """All measurements of one invocation; results are in the shape that report.py reads."""

    def __init__(self, args, allocators):
        self.allocators = allocators
        self.rounds = args.rounds
        self.runner = runner.Runner(args.build, args.quick, args.undergo_env)
        names = [allocator.name for allocator in allocators]
        self.results = {
            "machine": describe_machine(args, allocators),
            "rounds": args.rounds, "quick": args.quick,
            "baseline": BASELINE if BASELINE in names else names[0],
            "allocators": {allocator.name: shown_path(allocator.path) for allocator in allocators},
            "runs": {}, "wrong": [], "startup": {}, "fork": {}, "counters": {}}
        self.expected = {}
        self.peaks = {}  # row -> largest RSS seen, whoever ran it
        self.excluded = set()

    def warm_up(self, kilobytes):
        """Touches somewhat more memory than a run is going to need, see support/warm.c."""
        megabytes = min(kilobytes * 5 // 4 // 1024 + 32, available_megabytes() // 2)
        subprocess.run([os.path.join(self.runner.bin, "warm"), str(megabytes)], check=False)

    def fail(self, row_name, allocator, message):
        say("WRONG: %s under %s: %s" % (row_name, allocator.name, message))
        self.excluded.add((row_name, allocator.name))
        self.results["wrong"].append({"row": row_name, "allocator": allocator.name,
                                      "message": message})
        self.results["runs"].get(row_name, {}).pop(allocator.name, None)

    def prepare(self, rows):
        """Makes inputs and finds what the right output is, by one native run of each row."""
        ready, native = [], Allocator("glibc", "")
        for row in rows:
            missing = self.runner.missing(row)
            if missing:
                say("%s is left out: %s not installed" % (row.name, ", ".join(missing)))
                continue
            try:
                self.runner.prepare(row)
                figures = self.runner.run(row, native)
                self.expected[row.name] = figures["checksum"]
                self.peaks[row.name] = figures["rss_kb"]
            except runner.Failed as failure:
                self.fail(row.name, native, str(failure))
                continue
            self.results["runs"][row.name] = {allocator.name: [] for allocator in self.allocators}
            ready.append(row)
        return ready

    def run_once(self, row, allocator, counters=False):
        self.warm_up(self.peaks[row.name])
        try:
            figures = self.runner.run(row, allocator, counters)
            self.peaks[row.name] = max(self.peaks[row.name], figures["rss_kb"])
            if figures["checksum"] != self.expected[row.name]:
                raise runner.Failed("another output than the native run")
            return figures
        except runner.Failed as failure:
            self.fail(row.name, allocator, str(failure))
            return None

    def run_rows(self, rows):
        for number in range(self.rounds):
            for position, row in enumerate(rows):
                shift = (number + position) % len(self.allocators)
                line = []
                for allocator in self.allocators[shift:] + self.allocators[:shift]:
                    if (row.name, allocator.name) in self.excluded:
                        continue
                    figures = self.run_once(row, allocator)
                    if figures is not None:
                        self.results["runs"][row.name][allocator.name].append(figures)
                        line.append((allocator.name, figures["cpu_s"]))
                order = [allocator.name for allocator in self.allocators]
                line.sort(key=lambda item: order.index(item[0]))
                say("round %d/%d %-16s %s" % (number + 1, self.rounds, row.name,
                                             "  ".join("%s %.2f" % item for item in line)))

    def is_settled(self, row, allocator):
        times = [figures["cpu_s"] for figures in self.results["runs"][row.name][allocator.name]]
        if len(times) < 2:
            return True
        low, middle, high = statistics.quantiles(times, n=4)
        return 0.93 * (high - low) <= SETTLED * middle * len(times) ** 0.5  # error of a median

    def settle(self, rows):
        """More rounds for the rows that need them, by the baseline and the subject alone."""
        two = [allocator for allocator in self.allocators
               if allocator.name in (self.results["baseline"], SUBJECT)]
        for number in range(EXTRA_ROUNDS if len(two) == 2 else 0):
            rest = [row for row in rows
                    if all((row.name, allocator.name) not in self.excluded for allocator in two)
                    and not all(self.is_settled(row, allocator) for allocator in two)]
            if not rest:
                break
            say("extra round %d: %s" % (number + 1, " ".join(row.name for row in rest)))
            for row in rest:
                for allocator in two if number % 2 else two[::-1]:
                    figures = self.run_once(row, allocator)
                    if figures is not None:
                        self.results["runs"][row.name][allocator.name].append(figures)

    def run_counters(self, rows):
        for row in rows:
            if row.runner != "steps":
                continue
            self.results["counters"][row.name] = {}
            for allocator in self.allocators:
                if (row.name, allocator.name) not in self.excluded:
                    figures = self.run_once(row, allocator, counters=True)
                    if figures is not None:
                        self.results["counters"][row.name][allocator.name] = figures["counters"]

    def with_native(self):
        if any(allocator.name == "glibc" for allocator in self.allocators):
            return self.allocators
        return [Allocator("glibc", "")] + self.allocators

    def run_startup(self, runs):
        command = [os.path.join(self.runner.bin, "startup"), str(runs), "/bin/true"]
        for allocator in self.with_native():
            extra = ";UNDERGO=" + self.runner.undergo_env if allocator.is_undergo else ""
            command.append("%s=%s%s" % (allocator.name, allocator.path, extra))
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env=self.runner.environment())
        if done.returncode != 0:
            say("WRONG: start-up: %s" % done.stderr.strip())
            self.results["wrong"].append({"row": "startup", "allocator": "?",
                                          "message": done.stderr.strip()})
            return
        for line in done.stdout.splitlines():
            name, wall, rss, faults = line.split()
            self.results["startup"][name] = {"wall_us": float(wall), "rss_kb": int(rss),
                                             "faults": int(faults)}
        say("start-up of /bin/true: " + "  ".join(
            "%s %.3f ms %.1f MB" % (name, entry["wall_us"] / 1000, entry["rss_kb"] / 1024)
            for name, entry in self.results["startup"].items()))

    def run_fork(self, rounds, megabytes):
        if available_megabytes() < megabytes * 2:
            say("fork case left out: it needs %d MB of free memory" % (megabytes * 2))
            return
        row = suite.own("fork", "", "forkheap %d 8" % megabytes, "forkheap %d 8" % megabytes)
        times = {allocator.name: [] for allocator in self.with_native()}
        for _ in range(rounds):
            for allocator in self.with_native():
                if ("fork", allocator.name) in self.excluded:
                    continue
                self.warm_up(megabytes * 1024)
                try:
                    figures = self.runner.run(row, allocator)
                    times[allocator.name].append(figures["metrics"]["fork_ms"])
                except runner.Failed as failure:
                    self.fail("fork", allocator, str(failure))
        self.results["fork"] = {name: statistics.median(values)
                                for name, values in times.items() if values}
        say("fork with %d MB of heap and 8 threads: %s" % (megabytes, "  ".join(
            "%s %.2f ms" % item for item in self.results["fork"].items())))


def available_megabytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"MemAvailable:\s+(\d+)", file.read()).group(1)) // 1024


def shown_path(path):
    """Relative below this folder: results are committed, and must not name where they were made."""
    here = os.getcwd() + os.sep
    return path[len(here):] if path.startswith(here) else path


def first_match(pattern, path):
    try:
        with open(path, encoding="utf-8") as file:
            found = re.search(pattern, file.read(), re.M)
            return found.group(1).strip() if found else "unknown"
    except OSError:
        return "unknown"


def package_version(path):
    """Debian's version of the package that owns a file, or ''."""
    if not path:
        return platform.libc_ver()[1]
    # dpkg knows the file by the path of before the merge of /lib into /usr/lib, or of after it.
    real = os.path.realpath(path)
    for name in (path, real, real.replace("/usr/lib", "/lib", 1)):
        try:
            owner = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True,
                                   check=False)
            if owner.returncode == 0:
                package = owner.stdout.split(": ")[0].split(",")[0]
                return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                                      capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            break
    return ""


def describe_machine(args, allocators):
    machine = {
        "processor": first_match(r"^model name\s*:\s*(.*)$", "/proc/cpuinfo"),
        "cores": str(os.cpu_count()),
        "memory": "%.1f GB" % (int(first_match(r"MemTotal:\s+(\d+)", "/proc/meminfo")) / 1e6),
        "kernel": platform.release(),
        "system": first_match(r'^PRETTY_NAME="?([^"\n]*)', "/etc/os-release"),
        "huge pages": first_match(r"\[(\w+)\]", "/sys/kernel/mm/transparent_hugepage/enabled"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "inputs": "reduced (--quick)" if args.quick else "full",
    }
    for allocator in allocators:
        if allocator.is_undergo:
            machine[allocator.name] = "UNDERGO=" + args.undergo_env
        else:
            version = package_version(allocator.path)
            machine[allocator.name] = version or os.path.basename(allocator.path)
    return machine


def main():
    parser, args = parse_arguments()
    if args.list:
        for row in suite.ROWS:
            print("%-16s %s" % (row.name, row.kind))
        return 0
    allocators = choose_allocators(parser, args)
    rows, startup, fork = choose_rows(parser, args)
    if not os.path.exists(os.path.join(args.build, "bench", "measure")):
        parser.error("--build '%s': run `make bench-build` first" % args.build)
    full = not (args.quick or args.only or args.ab or args.allocators)
    folder = args.output
    if not folder:
        folder = "bench/results" if full else os.path.join(args.build, "bench", "results")
    session = Session(args, allocators)
    interrupted = False
    try:
        rows = session.prepare(rows)
        session.run_rows(rows)
        if not (args.quick or args.demo):
            session.settle(rows)
        if startup:
            session.run_startup(100)
        if fork:
            session.run_fork(1 if args.quick else 5, 256 if args.quick else 1024)
        if full and runner.counters_work():
            session.run_counters(rows)
        elif full:
            say("no hardware counters on this machine (perf stat counts no instructions)")
    except KeyboardInterrupt:
        interrupted = True
    problem = report.write(session.results, [(row.name, row.kind) for row in suite.ROWS], folder)
    if problem:
        say(problem)
    summary = report.Summary(session.results)
    if args.demo:
        print(report.plain_table(summary))
    elif any(session.results["runs"].values()):
        print(report.ratio_table(summary))
    if (full or startup or fork) and summary.subject():
        print("\n" + report.bars_table(summary, summary.subject(), report.text_table))
    for entry in session.results["wrong"]:
        print("WRONG: %(row)s under %(allocator)s: %(message)s" % entry)
    say("results are in %s" % folder)
    if interrupted:
        return 130
    return 1 if session.results["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
