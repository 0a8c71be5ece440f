# SPDX-License-Identifier: Apache-2.0
"""Turns the scheduler's runs into tables, bars and the files of results."""

import os

import driver
from report import markdown_table, number, text_table, verdict

LIVE = 1000000

# The one figure of a row for its line of progress and for the chart: name of the metric, unit.
HEADLINES = (("ns", "ns"), ("requests_per_s", "/s"), ("stop_max_ms", "ms"), ("s", "s"),
             ("available_kib", "KiB each"), ("total_s", "s"))


def headline(figures):
    for name, unit in HEADLINES:
        if name in figures["metrics"]:
            return "%.4g %s" % (figures["metrics"][name], unit)
    return "%.2f s" % figures["wall_s"]


def over(value, divisor):
    return value / divisor if value is not None and divisor else None


def times(value, factor):
    return value * factor if value is not None else None


def scaled(values, scale):
    """Nanoseconds in the unit of the table."""
    return [times(value, scale) for value in values]


class Summary(driver.Summary):
    NAME, TITLE, NOTE = "sched", "Benchmarks of the scheduler", ""
    SUBJECTS = ("NPTL", "undergo", "Go")
    BAR_KEYS = ("figure", "unit", "must", "aim", "undergo", "nptl", "go", "more_is_better")

    def of(self, row, key, scale=1):
        """undergo, NPTL, Go."""
        return scaled([self.median(row, who, key) for who in ("undergo", "NPTL", "Go")], scale)

    def bars(self):
        """Rows of (figure, unit, must, aim, undergo, NPTL, Go, True when more is better)."""
        rows = []

        def at_most(figure, unit, values, must, aim):
            rows.append((figure, unit, must, aim, *values, False))

        def at_least(figure, unit, values, must, aim):
            rows.append((figure, unit, must, aim, *values, True))

        create = self.of("create+join", "ns", 1e-3)
        at_most("create + join", "us", create, over(create[1], 30), times(create[2], 1.5))
        cond = self.of("mutex+cond switch", "ns", 1e-3)
        at_most("mutex+cond switch", "us", cond, over(cond[1], 10), cond[2])
        sem = self.of("semaphore switch", "ns", 1e-3)
        at_most("semaphore switch", "us", sem, over(sem[1], 8), 0.2)
        mutex = self.of("uncontended mutex", "cpu_ns")
        at_most("uncontended mutex", "ns", mutex, times(mutex[1], 1.1), mutex[1])
        pipe = self.of("pipe ping-pong", "ns", 1e-3)
        at_most("pipe ping-pong, one way", "us", pipe, times(pipe[1], 1.05), times(pipe[1], 0.5))
        live = self.of("1 M parked", "live")
        live[1] = self.median("100 k parked", "NPTL", "live")
        at_least("live threads, 64 KiB stacks, all joined", "", live, LIVE, LIVE)
        memory = self.of("1 M parked", "available_kib")
        memory[1] = self.median("100 k parked", "NPTL", "available_kib")
        at_most("memory for each parked thread", "KiB", memory, 12, 8.5)
        at_most("1 M sleepers of 1 s", "s", self.of("1 M sleepers", "total_s"), 15, 7)
        echo = self.of("echo, 10 k connections", "requests_per_s", 1e-3)
        at_least("echo server, 10 k connections, throughput", "k/s", echo, echo[1],
                 times(echo[1], 1.5))
        memory = self.of("echo, 10 k connections", "memory_mb")
        at_most("the same, memory", "MB", memory, times(memory[1], 0.6), times(memory[1], 0.4))
        most = (os.cpu_count() or 1) + 4
        at_most("kernel threads, 10 k threads parked", "", self.of("10 k parked",
                                                                   "kernel_threads"), most, most)
        compute = self.of("compute", "s")
        at_most("CPU-bound, a thread for each processor", "s", compute, times(compute[1], 1.02),
                compute[1])
        at_most("longest stop, 10,000 parked, 2 running", "ms", self.of("stop", "stop_max_ms"),
                1, 0.2)
        return rows

    def bars_table(self, layout):
        table = [["figure", "undergo", "must", "aim", "verdict", "NPTL", "Go"]]
        for figure, unit, must, aim, mine, native, go, more in self.bars():
            sign, negate = (">= ", -1) if more else ("<= ", 1)
            small = self.results["quick"] and must == LIVE
            said = ("not measured by a quick run" if small else
                    verdict(times(mine, negate), times(must, negate), times(aim, negate)))
            table.append([figure,
                          number(mine, 3) + (" " + unit if unit and mine is not None else ""),
                          sign + number(must, 3), sign + number(aim, 3), said,
                          number(native, 3), number(go, 3)])
        return layout(table)

    def metrics_table(self, layout):
        table = [["workload", "figure"] + self.subjects + ["undergo / NPTL"]]
        for row in self.rows:
            for name in self.metric_names(row) + ["cpu_s", "rss_kb"]:
                values = {s: self.median(row, s, name) for s in self.subjects}
                table.append([row, name.replace("_", " ")]
                             + [number(values[s], 3) for s in self.subjects]
                             + [number(over(values.get("undergo"), values.get("NPTL")), 3)])
        return layout(table)

    def text(self):
        return "\n\n".join([self.metrics_table(text_table), self.bars_table(text_table)])

    def markdown(self):
        out = self.head() + ["", "## Workloads", ""]
        out += ["* **%s**: %s" % (row, self.about[row]) for row in self.rows]
        out += ["", "## Figures", "", self.metrics_table(markdown_table)]
        return "\n".join(out) + "\n"

    def chart_script(self, path):
        """NPTL and Go over undergo, by workload; '' when there is nothing to compare."""
        lines = ["row NPTL Go"]
        for row in self.rows:
            key = next((name for name, _ in HEADLINES
                        if self.median(row, "undergo", name) is not None), None)
            mine = self.median(row, "undergo", key) if key else None
            cells = []
            for subject in ("NPTL", "Go"):
                ratio = over(self.median(row, subject, key), mine) if key else None
                if ratio and key == "requests_per_s":
                    ratio = 1 / ratio
                cells.append("%.4f" % ratio if ratio and ratio > 0 else "-")
            if cells != ["-", "-"]:
                lines.append('"%s" %s' % (row, " ".join(cells)))
        if len(lines) == 1:
            return ""
        return "$data << END\n%s\nEND\n" % "\n".join(lines) + CHART % {"svg": path}


CHART = """
set terminal svg size 1200,600 background rgb 'white' font 'sans,12' noenhanced
set output '%(svg)s'
set datafile missing '-'
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
set xtics rotate by -40 left scale 0
set grid ytics lc rgb '#dddddd'
set logscale y
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#3367d6' dashtype 2
set key outside top right
set title 'How many times as much NPTL and Go need as undergo (time, memory, stops)'
plot $data using 2:xtic(1) title 'NPTL' lc rgb '#9e9e9e', \\
     $data using 3 title 'Go' lc rgb '#00acd7'
"""
