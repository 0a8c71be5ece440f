# SPDX-License-Identifier: Apache-2.0
"""Turns the collector's runs into tables, bars and the files of results."""

import driver
import report
from report import markdown_table, number, text_table, verdict

NODES = 1 << 24  # for which the bars of a full mark were set
LIMIT_MB = 256


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


class Summary(driver.Summary):
    NAME, TITLE = "gc", "Benchmarks of the collector"
    NOTE = "; stops of all rounds together"
    SUBJECTS = ("undergo", "Go", "bdwgc", "bdwgc incremental")
    BAR_KEYS = ("figure", "value", "must", "aim", "unit", "go", "bdwgc")

    def behaved_ratios(self, key):
        ratios = {}
        for row, by in self.results["behaved"].items():
            if by.get("on") and by.get("off"):
                off = report.median(by["off"], key)
                if off:
                    ratios[row] = report.median(by["on"], key) / off
        return ratios

    def worst_over_goal(self):
        values = [self.median(row, "undergo", "over_goal_percent") for row in self.rows]
        values = [value for value in values if value is not None]
        return max(values) if values else None

    def worst_compat(self):
        """Of the corpus' leaking programs: the largest RSS / must, and aim / must of that one."""
        ratios = [(c["rss_mb"] / (2.5 * c["live_mb"] + 32),
                   (2 * c["live_mb"] + 16) / (2.5 * c["live_mb"] + 32))
                  for c in self.results["compat"].values()]
        return max(ratios, default=(None, None))

    def leaks_table(self, layout):
        table = [["leaking program", "RSS MB, natively", "under undergo", "live MB"]]
        for name, c in self.results["compat"].items():
            table.append([name, number(c["native_mb"], 0), number(c["rss_mb"], 0),
                          number(c["live_mb"], 0)])
        return layout(table)

    def recall_table(self, layout):
        table = [["leak program", "dropped", "found", "%"]]
        for name, (found, dropped) in self.results["recall"].items():
            table.append([name, str(dropped), str(found), number(100 * found / dropped)])
        return layout(table)

    def bars(self):
        """Rows of (figure, value, must, aim, unit, Go's value, bdwgc's); as in report.Summary."""
        def scaled(subject, key):
            value = self.median("graph", subject, key)
            # A quick run has fewer nodes; the bars are for all.
            return value if value is None or not self.results["quick"] else value * 16

        def of(row, key):
            return [self.median(row, who, key) for who in ("undergo", "Go", "bdwgc")]
        trees = of("binary trees", "wall_s")
        ordered = [scaled(who, "mark_ordered_cpu_s") for who in ("undergo", "Go", "bdwgc")]
        shuffled = [scaled(who, "mark_shuffled_cpu_s") for who in ("undergo", "Go", "bdwgc")]
        churn = of("nodes", "longest_stop_in_churn_ms")
        p99 = [quantile([s for by in self.results["stops"].values() for s in by.get(who, [])], 0.99)
               for who in ("undergo", "Go", "bdwgc")]
        leak = of("leak", "gc_percent")
        limit = self.median("leak, limit", "undergo", "rss_highest_mb")
        recall = [100 * found / dropped for found, dropped in self.results["recall"].values()]
        compat, compat_aim = self.worst_compat()
        cpu = report.geometric_mean(self.behaved_ratios("cpu_s").values())
        rss = report.geometric_mean(self.behaved_ratios("rss_kb").values())
        aim = trees[1] * 0.7 if trees[1] else None
        return [
            ("binary trees, wall", trees[0], trees[1], aim, "s", *trees[1:]),
            ("mark of 16.8 M nodes in order, CPU", ordered[0], 0.6, 0.3, "s", *ordered[1:]),
            ("the same, shuffled, CPU", shuffled[0], 1.0, 0.5, "s", *shuffled[1:]),
            ("longest stop under churn", churn[0], 1.0, 0.25, "ms", *churn[1:]),
            ("stops, p99 over all", p99[0], 0.5, 0.15, "ms", *p99[1:]),
            ("heap above the goal", self.worst_over_goal(), 10, 5, "%", None, None),
            ("GC's share of the CPUs, steady leak", leak[0], 25, 12, "%", *leak[1:]),
            ("leak under GOMEMLIMIT=256MiB, RSS", limit, 1.05 * LIMIT_MB, LIMIT_MB, "MB", None,
             None),
            ("garbage missed, worst leak program", 100 - min(recall) if recall else None, 1, 0.1, "%",
             None, None),
            ("leaking programs, RSS / (2.5 live + 32 MB)", compat, 1, compat_aim, "", None, None),
            ("programs that free, GC on / off, CPU", cpu, 1.03, 1.01, "", None, None),
            ("programs that free, GC on / off, RSS", rss, 1.05, 1.02, "", None, None),
        ]

    def bars_table(self, layout):
        rows = [["figure", "undergo", "must", "aim", "verdict", "Go", "bdwgc"]]
        for figure, value, must, aim, unit, go, bdwgc in self.bars():
            rows.append([figure, number(value, 3) + (" " + unit if unit and value is not None
                                                     else ""),
                         "<= " + number(must), "<= " + number(aim), verdict(value, must, aim),
                         number(go, 3), number(bdwgc, 3)])
        return layout(rows)

    def runs_table(self, layout):
        table = [["program", "under", "wall s", "CPU s", "peak RSS MB", "cycles", "GC %",
                  "stop p50 ms", "p99", "p99.9", "max", "over goal %"]]
        for row in self.rows:
            for subject in self.subjects:
                if not self.results["runs"][row].get(subject):
                    continue
                stops = self.results["stops"][row][subject]
                rss = self.median(row, subject, "rss_kb")
                table.append(
                    [row, subject, number(self.median(row, subject, "wall_s")),
                     number(self.median(row, subject, "cpu_s")), number(rss / 1024, 0),
                     number(self.median(row, subject, "cycles"), 0),
                     number(self.median(row, subject, "gc_percent"), 0)]
                    + [number(quantile(stops, part), 3) for part in (0.5, 0.99, 0.999, 1)]
                    + [number(self.median(row, subject, "over_goal_percent"), 0)])
        return layout(table)

    def metrics_table(self, layout):
        table = [["program", "figure"] + self.subjects]
        for row in self.rows:
            for name in self.metric_names(row):
                table.append([row, name.replace("_", " ")] + [
                    number(self.median(row, subject, name), 3) for subject in self.subjects])
        return layout(table)

    def behaved_table(self, layout):
        cpu, rss = self.behaved_ratios("cpu_s"), self.behaved_ratios("rss_kb")
        table = [["workload", "CPU s, GC off", "user s, on", "system s, on", "faults, on",
                  "CPU, on / off", "RSS, on / off"]]
        for row, ratio in cpu.items():
            on, off = (self.results["behaved"][row][mode] for mode in ("on", "off"))
            more = [report.median(on, key) - report.median(off, key)
                    for key in ("user_s", "system_s", "minor_faults")]
            table.append([row, number(report.median(off, "cpu_s")), "%+.3f" % more[0],
                          "%+.3f" % more[1], "%+d" % more[2], number(ratio, 3),
                          number(rss.get(row), 3)])
        table.append(["geometric mean", "", "", "", ""]
                     + [number(report.geometric_mean(r.values()), 3) for r in (cpu, rss)])
        return layout(table)

    def text(self):
        parts = []
        if self.rows:
            parts += [self.runs_table(text_table)]
        if self.results["recall"]:
            parts += [self.recall_table(text_table)]
        if self.results["compat"]:
            parts += [self.leaks_table(text_table)]
        if self.results["behaved"]:
            parts += [self.behaved_table(text_table)]
        return "\n\n".join(parts + [self.bars_table(text_table)])

    def markdown(self):
        out = self.head()
        if self.rows:
            out += ["", "## Programs", ""]
            out += ["* **%s**: %s" % (row, self.about[row]) for row in self.rows]
            out += ["", self.runs_table(markdown_table), "", "## What the programs measured", "",
                    self.metrics_table(markdown_table)]
        if self.results["recall"]:
            out += ["", "## Recall", "", self.recall_table(markdown_table)]
        if self.results["compat"]:
            out += ["", "## Leaking programs of the compatibility corpus", "",
                    self.leaks_table(markdown_table)]
        if self.results["behaved"]:
            out += ["", "## Programs that free what they allocate, GC on over GC off", "",
                    self.behaved_table(markdown_table)]
        return "\n".join(out) + "\n"

    def chart_script(self, path):
        """Longest and p99 stops, and memory, by program."""
        if not self.rows:
            return ""
        blocks, plots = [], {}
        for name, value in (("p99", lambda r, s: quantile(self.stops(r, s), 0.99)),
                            ("longest", lambda r, s: quantile(self.stops(r, s), 1)),
                            ("rss", lambda r, s: (self.median(r, s, "rss_kb") or 0) / 1024)):
            lines = ["row " + " ".join('"%s"' % s for s in self.subjects)]
            for row in self.rows:
                values = [value(row, subject) for subject in self.subjects]
                lines.append('"%s" %s' % (row, " ".join("-" if not v else "%.4f" % v
                                                        for v in values)))
            blocks.append("$%s << END\n%s\nEND\n" % (name, "\n".join(lines)))
            plots[name] = ", ".join("$%s using %d%s title '%s' lc rgb '%s'"
                                    % (name, i + 2, ":xtic(1)" if i == 0 else "", s, COLOURS[s])
                                    for i, s in enumerate(self.subjects))
        return "".join(blocks) + CHART % dict(plots, svg=path)

    def stops(self, row, subject):
        return self.results["stops"].get(row, {}).get(subject, [])

    def results_json(self):
        stops = {row: {who: {"count": len(v), "p50": quantile(v, 0.5), "p99": quantile(v, 0.99),
                             "p999": quantile(v, 0.999), "max": quantile(v, 1)}
                       for who, v in by.items()} for row, by in self.results["stops"].items()}
        return {**super().results_json(), "stops": stops}


COLOURS = {"undergo": "#3367d6", "Go": "#00acd7", "bdwgc": "#f2b33d",
           "bdwgc incremental": "#9e9e9e"}
CHART = """
set terminal svg size 1200,1100 background rgb 'white' font 'sans,12' noenhanced
set output '%(svg)s'
set datafile missing '-'
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
set grid ytics lc rgb '#dddddd'
set logscale y
set key outside top right
set multiplot layout 3,1
set title 'Stops of the world: 99 of 100 are at most so long, ms'
plot %(p99)s
set title 'The longest stop, ms'
plot %(longest)s
set title 'Peak RSS, MB'
plot %(rss)s
unset multiplot
"""
