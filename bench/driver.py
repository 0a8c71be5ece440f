# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the collector and of the scheduler (gc/, sched/) share: options, rounds in
which every subject runs every row, one measured run of a program, the summary and its files."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess

import run as allocator_bench
import runner
from report import draw, markdown_table


def say(text):
    allocator_bench.say(text)


class Session:
    """Rows under several subjects. A subclass has the class attributes below and `run_row(row,
    subject)`, which returns the figures of one run: wall_s, cpu_s, rss_kb, metrics."""

    NAME = ""  # folder of the programs, and of the files of results
    SUFFIX = {}  # of a program's file, by subject
    LIMIT_SECONDS = 300
    FAILURES = (runner.Failed,)

    def __init__(self, args, **more):
        self.quick = args.quick
        self.build = os.path.abspath(args.build)
        self.bin = os.path.join(self.build, "bench")
        self.data = os.path.join(self.bin, "data")
        self.library = os.path.join(self.build, "libundergo.so")
        os.makedirs(self.data, exist_ok=True)
        self.results = {"quick": args.quick, "rounds": args.rounds, "runs": {}, **more,
                        "wrong": []}
        self.checksums = {}

    def program(self, row, subject):
        return os.path.join(self.bin, self.NAME, row.program + self.SUFFIX.get(subject, ""))

    def arguments(self, row):
        return row.quick if self.quick else row.arguments

    @staticmethod
    def environment(extra=None):
        """The whole environment of a run: nothing of the caller's gets in but PATH."""
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", **(extra or {})}

    def takes_part(self, row, subject):
        return os.path.exists(self.program(row, subject))

    def measure(self, row, subject, env):
        """One run of a row's program; returns (figures, text of stderr). What it printed as
        `metric NAME NUMBER` is in the figures, its checksum must be that of everybody."""
        result = os.path.join(self.data, "measured-%s-%d" % (self.NAME, os.getpid()))
        command = [os.path.join(self.bin, "measure"), result,
                   self.library if subject == "undergo" else "", self.program(row, subject),
                   *self.arguments(row)]
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True)
        try:
            out, err = process.communicate(timeout=self.LIMIT_SECONDS)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(reason, subprocess.TimeoutExpired):
                raise runner.Failed("no end after %d s" % self.LIMIT_SECONDS) from None
            raise
        figures = runner.read_figures(result, err)
        figures["metrics"], checksum = read_metrics(out)
        if checksum and checksum != self.checksums.setdefault(self.checksum_key(row), checksum):
            raise runner.Failed("another result than the first program's")
        return figures, err.decode("utf-8", "replace")

    def checksum_key(self, row):
        return row.name

    def warm_up(self, kilobytes):
        """As in the allocator's benchmark: the host backs memory before it is measured."""
        megabytes = min(kilobytes // 1024 + 64, allocator_bench.available_megabytes() // 2)
        subprocess.run([os.path.join(self.bin, "warm"), str(megabytes)], check=False)

    def run_rows(self, rows, subjects):
        """Interleaved: in each round every row under every subject, `times` of the row where it has
        that; who begins changes."""
        peak = {}
        for number in range(self.results["rounds"]):
            for position, row in enumerate(rows):
                mine = [s for s in subjects if self.takes_part(row, s)]
                if not mine:
                    say("%s is left out: what it runs is not there" % row.name)
                    continue
                shift = (number + position) % len(mine)
                line = []
                for subject in (mine[shift:] + mine[:shift]) * getattr(row, "times", 1):
                    self.warm_up(peak.get(row.name, 0))
                    try:
                        figures = self.run_row(row, subject)
                    except self.FAILURES as failure:
                        self.fail(row.name, subject, str(failure))
                        continue
                    peak[row.name] = max(peak.get(row.name, 0), figures["rss_kb"])
                    self.results["runs"].setdefault(row.name, {}).setdefault(
                        subject, []).append(figures)
                    line.append("%s %s" % (subject, self.headline(figures)))
                say("round %d/%d %-22s %s" % (number + 1, self.results["rounds"], row.name,
                                              "; ".join(line)))

    def fail(self, row, subject, message):
        say("WRONG: %s under %s: %s" % (row, subject, message))
        self.results["wrong"].append({"row": row, "subject": subject, "message": message})


def read_metrics(out):
    """The metrics and the checksum that a program printed."""
    metrics, checksum = {}, ""
    for line in out.decode().splitlines():
        words = line.split()
        if words[0] == "metric":
            metrics[words[1]] = float(words[2])
        elif words[0] == "checksum":
            checksum = words[1]
    return metrics, checksum


class Summary:
    """Medians of the runs, and the files that are made of them. A subclass has NAME, TITLE,
    SUBJECTS in the order of the columns, BAR_KEYS, and bars(), tables(), chart_script()."""

    def __init__(self, results, about):
        self.results, self.about = results, about
        self.rows = list(results["runs"])
        present = {subject for by in results["runs"].values() for subject in by}
        self.subjects = [s for s in self.SUBJECTS if s in present]

    def median(self, row, subject, key):
        """Of a figure of the run, or of a metric that it printed; None if nobody measured it."""
        runs = self.results["runs"].get(row, {}).get(subject, [])
        values = [run["metrics"].get(key, run.get(key)) for run in runs]
        values = [value for value in values if value is not None]
        return statistics.median(values) if values else None

    def metric_names(self, row):
        names = []
        for runs in self.results["runs"][row].values():
            names += [name for name in runs[0]["metrics"] if name not in names]
        return names

    def head(self):
        """The begin of the page: title, machine, what was wrong, the bars."""
        out = ["# " + self.TITLE, "",
               "Made by `make bench-%s`; what each row is: `bench/README.md`. Medians of %d "
               "interleaved rounds%s." % (self.NAME, self.results["rounds"], self.NOTE), "",
               "| machine | |", "|---|---|"]
        out += ["| %s | %s |" % item for item in self.results["machine"].items()]
        for entry in self.results["wrong"]:
            out += ["", "**WRONG: %(row)s under %(subject)s: %(message)s**" % entry]
        return out + ["", "## Bars", "", self.bars_table(markdown_table)]

    def results_json(self):
        return {**self.results, "bars": [dict(zip(self.BAR_KEYS, bar)) for bar in self.bars()]}

    def write(self, folder):
        """Writes NAME.md, NAME.json and NAME.svg; returns an error text or ''."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, self.NAME)
        with open(path + ".md", "w", encoding="utf-8") as file:
            file.write(self.markdown())
        with open(path + ".json", "w", encoding="utf-8") as file:
            json.dump(self.results_json(), file, indent=1)
            file.write("\n")
        script = self.chart_script(path + ".svg")
        if not script:
            return ""
        return draw(script)


def describe_machine(args, undergo_env, said):
    """The machine, and what of undergo and Go was run; `said` is how the settings are shown."""
    class Inputs:
        quick = args.quick
    Inputs.undergo_env = undergo_env
    machine = allocator_bench.describe_machine(Inputs, [])
    machine["undergo"] = said
    go = shutil.which("go")
    machine["Go"] = (subprocess.run([go, "version"], capture_output=True, text=True, check=False)
                     .stdout.split()[2] if go else "not installed")
    return machine


class Options(allocator_bench.Parser):
    """The common options; `names` are what --only takes, `built` is a program that must be there."""

    def __init__(self, description, names, subjects, name, built):
        super().__init__(description=description)
        self.names, self.subjects, self.name, self.built = names, subjects, name, built
        self.add_argument("--build", default="build", help="build directory (default: build)")
        self.add_argument("--rounds", type=int, help="rounds (default: 3, with --quick 1)")
        self.add_argument("--quick", action="store_true", help="smaller inputs, one round")
        self.add_argument("--only", default="", metavar="NAME;...",
                          help="only these, separated by ';', of: %s" % "; ".join(names))
        self.add_argument("--subjects", default=",".join(subjects), metavar="NAME,...",
                          help="of %s" % ", ".join(subjects))
        self.add_argument("--output", metavar="DIR",
                          help="folder for results (default: bench/results for a full run, else "
                               "BUILD/bench/results)")

    def read(self):
        args = self.parse_args()
        if args.rounds is None:
            args.rounds = 1 if args.quick else 3
        if args.rounds < 1:
            self.error("--rounds %d: accepted is a number from 1" % args.rounds)
        args.chosen = re.split(" *; *", args.only) if args.only else self.names
        args.subjects = tuple(args.subjects.split(","))
        for option, values, accepted in (("only", args.chosen, self.names),
                                         ("subjects", args.subjects, self.subjects)):
            for value in values:
                if value not in accepted:
                    self.error("--%s '%s': accepted are %s" % (option, value, "; ".join(accepted)))
        if not os.path.exists(os.path.join(args.build, "bench", self.name, self.built)):
            self.error("--build '%s': run `make bench-%s-build` first" % (args.build, self.name))
        full = not args.quick and not args.only and args.subjects == tuple(self.subjects)
        args.output = args.output or ("bench/results" if full
                                      else os.path.join(args.build, "bench", "results"))
        return args


def execute(args, session, parts, summarize):
    """Runs the parts one after the other, also after an interrupt writes and prints what there is;
    returns the exit status."""
    interrupted = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is ended, too
    try:
        for part in parts:
            part()
    except KeyboardInterrupt:
        interrupted = True
    summary = summarize(session.results)
    problem = summary.write(args.output)
    if problem:
        say(problem)
    print(summary.text())
    for entry in session.results["wrong"]:
        print("WRONG: %(row)s under %(subject)s: %(message)s" % entry)
    say("results are in %s" % args.output)
    if interrupted:
        return 130
    return 1 if session.results["wrong"] else 0
