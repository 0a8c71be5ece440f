# SPDX-License-Identifier: Apache-2.0
"""Turns runs into figures: medians, ratios, geometric means, the bars, and the files of results."""

import json
import math
import os
import statistics
import subprocess

BIG_KB = 10 * 1024  # "those above 10 MB" of the bars, by the baseline's peak RSS

# snmalloc's hot pair over jemalloc's in one driver on one machine: 4.9 ns / 6.7 ns.
SNMALLOC_PAIR_RATIO = 4.9 / 6.7


def geometric_mean(values):
    values = [value for value in values if value > 0]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def median(runs, key):
    return statistics.median(run[key] for run in runs)


class Summary:
    """Medians of all runs and their ratios to the baseline."""

    def __init__(self, results):
        self.results = results
        self.baseline = results["baseline"]
        self.names = list(results["allocators"])
        self.medians = {}
        for row, by_allocator in results["runs"].items():
            self.medians[row] = {
                name: {key: median(runs, key)
                       for key in ("cpu_s", "wall_s", "rss_kb", "minor_faults")}
                for name, runs in by_allocator.items() if runs}

    def rows(self):
        return list(self.medians)

    def subject(self):
        """Whom the bars are for: undergo, or the last of the peers while it is not there."""
        others = [name for name in self.names if name != self.baseline]
        return "undergo" if "undergo" in others else others[-1] if others else ""

    def value(self, row, name, key):
        return self.medians[row].get(name, {}).get(key)

    def ratio(self, row, name, key):
        mine, base = self.value(row, name, key), self.value(row, self.baseline, key)
        return mine / base if mine is not None and base else None

    def ratios(self, name, key, rows=None):
        pairs = [(row, self.ratio(row, name, key)) for row in (rows or self.rows())]
        return {row: ratio for row, ratio in pairs if ratio is not None}

    def big_rows(self):
        return [row for row in self.rows()
                if (self.value(row, self.baseline, "rss_kb") or 0) > BIG_KB]

    def metric(self, row, name, metric):
        runs = self.results["runs"].get(row, {}).get(name, [])
        values = [run["metrics"][metric] for run in runs if metric in run["metrics"]]
        return statistics.median(values) if values else None

    def bars(self, name):
        """Rows of (figure, value, must, aim, unit); value is None when it was not measured."""
        cpu, rss = self.ratios(name, "cpu_s"), self.ratios(name, "rss_kb")
        big = self.ratios(name, "rss_kb", self.big_rows())
        worst = max(cpu, key=cpu.get, default=None)
        worst_note = " (%s)" % worst if worst else ""
        mine, native = self.results["startup"].get(name), self.results["startup"].get("glibc")
        start_ms = start_mb = fork_ratio = None
        if mine and native:
            start_ms = (mine["wall_us"] - native["wall_us"]) / 1000
            start_mb = (mine["rss_kb"] - native["rss_kb"]) / 1024
        fork = self.results["fork"]
        if name in fork and "glibc" in fork:
            fork_ratio = fork[name] / fork["glibc"]
        pair, peer, base_pair = (self.metric("hotpair", who, "ns_per_pair")
                                 for who in (name, "mimalloc", self.baseline))
        aim_pair = base_pair * SNMALLOC_PAIR_RATIO if base_pair else None
        return [
            ("CPU time, geometric mean", geometric_mean(cpu.values()), 0.80, 0.70, ""),
            ("CPU time, worst workload" + worst_note, cpu.get(worst), 1.10, 1.00, ""),
            ("peak RSS, geometric mean", geometric_mean(rss.values()), 0.95, 0.85, ""),
            ("peak RSS, the %d above 10 MB" % len(big), geometric_mean(big.values()), 1.00, 0.97,
             ""),
            ("start-up of /bin/true, over native", start_ms, 1.0, 0.4, "ms"),
            ("start-up RSS, over native", start_mb, 2.0, 1.0, "MB"),
            ("fork of 1 GiB and 8 threads, to glibc", fork_ratio, 1.10, 1.00, ""),
            ("malloc+free, 64 B, hot", pair, peer, aim_pair, "ns"),
        ]


def verdict(value, must, aim):
    if value is None or must is None:
        return "not measured"
    if aim is not None and value <= aim:
        return "met, aim too"
    return "met" if value <= must else "MISSED"


def number(value, digits=2):
    return "-" if value is None else "%.*f" % (digits, value)


def text_table(rows):
    """Left-aligned first column, right-aligned others."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(row, widths))) for row in rows)


def ratio_table(summary):
    """The short table for the terminal: baseline in figures, everybody else in ratios to it."""
    base = summary.baseline
    others = [name for name in summary.names if name != base]
    rows = [["", base, "", ""] + [cell for name in others for cell in (name, "", "", "")],
            ["workload", "CPU s", "RSS MB", "faults"] +
            ["CPU", "best", "RSS", "faults"] * len(others)]
    for row in summary.rows():
        cells = [row, number(summary.value(row, base, "cpu_s")),
                 number((summary.value(row, base, "rss_kb") or 0) / 1024, 1),
                 number(summary.value(row, base, "minor_faults"), 0)]
        for name in others:
            cells += [number(summary.ratio(row, name, "cpu_s")),
                      number(best_ratio(summary, row, name)),
                      number(summary.ratio(row, name, "rss_kb")),
                      number(summary.ratio(row, name, "minor_faults"))]
        rows.append(cells)
    means = ["geometric mean", "", "", ""]
    for name in others:
        means += [number(geometric_mean(summary.ratios(name, "cpu_s").values()), 3), "",
                  number(geometric_mean(summary.ratios(name, "rss_kb").values()), 3), ""]
    pairs = ["%s %s" % (name, number(summary.metric("hotpair", name, "ns_per_pair")))
             for name in summary.names if summary.metric("hotpair", name, "ns_per_pair")]
    return text_table(rows + [means]) + ("\nhotpair, ns: " + "  ".join(pairs) if pairs else "")


def plain_table(summary):
    """One line per program and allocator, in plain figures."""
    rows = [["program", "under", "CPU s", "wall s", "peak RSS MB", "page faults"]]
    for row in summary.rows():
        for name in summary.names:
            values = [summary.value(row, name, key)
                      for key in ("cpu_s", "wall_s", "rss_kb", "minor_faults")]
            if None not in values:
                rows.append([row, name, number(values[0]), number(values[1]),
                             number(values[2] / 1024, 1),
                             number(values[3], 0)])
    return text_table(rows)


def best_ratio(summary, row, name):
    """Ratio of the quickest runs: less disturbed by what else the machine does than medians."""
    runs = summary.results["runs"][row]
    if not runs.get(name) or not runs.get(summary.baseline):
        return None
    base = min(run["cpu_s"] for run in runs[summary.baseline])
    return min(run["cpu_s"] for run in runs[name]) / base if base else None


def bars_table(summary, name, layout):
    """The bars for one allocator, with the values of the others beside them."""
    others = [other for other in summary.names if other not in (name, summary.baseline)]
    columns = [summary.bars(other) for other in others]
    rows = [["figure", name, "must", "aim", "verdict"] + others]
    for index, (figure, value, must, aim, unit) in enumerate(summary.bars(name)):
        rows.append([figure, number(value, 3) + (" " + unit if unit and value is not None else ""),
                     "<= " + number(must), "<= " + number(aim), verdict(value, must, aim)]
                    + [number(column[index][1], 3) for column in columns])
    return layout(rows)


def markdown_table(rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)


def markdown(summary, kinds):
    results, base = summary.results, summary.baseline
    intro = ("Made by `make bench`; what each row is: `bench/README.md`. Medians of %d interleaved "
             "rounds; ratios to %s, lower is better." % (results["rounds"], base))
    most = max((len(runs) for by in results["runs"].values() for runs in by.values()), default=0)
    if most > results["rounds"]:
        intro += (" Rows whose medians were not settled by then were run on by the baseline and by "
                  "undergo, up to %d times." % most)
    out = ["# Allocator benchmarks", "", intro, ""]
    out += ["| machine | |", "|---|---|"]
    out += ["| %s | %s |" % item for item in results["machine"].items()]
    for entry in results["wrong"]:
        out += ["", "**WRONG: %s under %s: %s** (left out of the means)"
                % (entry["row"], entry["allocator"], entry["message"])]
    if summary.subject():
        out += ["", "## Bars", "", bars_table(summary, summary.subject(), markdown_table)]
    for title, key, scale, digits in (("CPU time, seconds", "cpu_s", 1, 2),
                                      ("Wall time, seconds", "wall_s", 1, 2),
                                      ("Peak RSS, MB", "rss_kb", 1 / 1024, 1),
                                      ("Minor page faults", "minor_faults", 1, 0)):
        table = [["workload"] + summary.names]
        for row in summary.rows():
            cells = [row]
            for name in summary.names:
                value = summary.value(row, name, key)
                ratio = summary.ratio(row, name, key)
                cells.append("wrong" if value is None else number(value * scale, digits)
                             + ("" if name == base or ratio is None else " (%.2f)" % ratio))
            table.append(cells)
        means = [("geometric mean of ratios", None)]
        if key == "rss_kb":
            means.append(("the same above 10 MB", summary.big_rows()))
        for label, rows in means:
            values = [summary.ratios(name, key, rows).values() for name in summary.names]
            table.append(["**%s**" % label] + [number(geometric_mean(v), 3) for v in values])
        out += ["", "## " + title, "", markdown_table(table)]
    out += ["", "## Start-up, fork, hot pair", ""]
    table = [["under", "/bin/true, ms", "its RSS, MB", "fork, ms", "malloc+free 64 B, ns"]]
    for name in ["glibc"] * ("glibc" not in summary.names) + summary.names:
        table.append([name, number(start(summary, name, "wall_us", 1e-3), 3),
                      number(start(summary, name, "rss_kb", 1 / 1024)),
                      number(results["fork"].get(name)),
                      number(summary.metric("hotpair", name, "ns_per_pair"))])
    out += [markdown_table(table)]
    if results["counters"]:
        out += ["", "## Hardware counters, ratios to %s (one run each)" % base, "",
                counters_table(summary)]
    table = [["workload", "kind"]] + [list(kind) for kind in kinds]
    out += ["", "## Workloads", "", markdown_table(table)]
    return "\n".join(out) + "\n"


def start(summary, name, key, scale):
    entry = summary.results["startup"].get(name)
    return entry[key] * scale if entry else None


def counters_table(summary):
    counters, base = summary.results["counters"], summary.baseline
    events = sorted({event for by in counters.values() for one in by.values() for event in one})
    others = [name for name in summary.names if name != base]
    table = [["workload"] + ["%s: %s" % (name, event) for name in others for event in events]]
    for row, by in counters.items():
        cells = [row]
        for name in others:
            for event in events:
                mine, theirs = by.get(name, {}).get(event), by.get(base, {}).get(event)
                cells.append(number(mine / theirs if mine is not None and theirs else None))
        table.append(cells)
    return markdown_table(table)


CHART = """
set terminal svg size 1500,900 background rgb 'white' font 'sans,12' noenhanced
set output '%(svg)s'
set datafile missing '-'
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
set xtics rotate by -40 left scale 0
set grid ytics lc rgb '#dddddd'
set yrange [0:%(top)s]
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#333333' dashtype 2
set key outside top right
set multiplot layout 2,1
set title 'CPU time, ratio to %(base)s (cut off at %(top)s)'
plot %(cpu)s
set title 'Peak RSS, ratio to %(base)s (cut off at %(top)s)'
plot %(rss)s
unset multiplot
"""
COLOURS = {"glibc": "#9e9e9e", "mimalloc": "#f2b33d", "tcmalloc": "#6aa84f", "undergo": "#3367d6"}


def chart(summary, folder, top=2):
    """Draws allocator.svg with gnuplot; returns an error text or ''."""
    others = [name for name in summary.names if name != summary.baseline]
    if not others or not summary.rows():
        return ""
    plots = {}
    blocks = []
    for key in ("cpu_s", "rss_kb"):
        lines = ["workload " + " ".join(others)]
        for row in summary.rows() + ["MEAN"]:
            cells = []
            for name in others:
                ratio = (geometric_mean(summary.ratios(name, key).values()) if row == "MEAN"
                         else summary.ratio(row, name, key))
                cells.append("-" if ratio is None else "%.3f" % min(ratio, top))
            lines.append('"%s" %s' % (row, " ".join(cells)))
        blocks.append("$%s << END\n%s\nEND\n" % (key, "\n".join(lines)))
        plots[key] = ", ".join("$%s using %d%s title '%s' lc rgb '%s'"
                               % (key, i + 2, ":xtic(1)" if i == 0 else "", name,
                                  COLOURS.get(name, "#a64d79"))
                               for i, name in enumerate(others))
    words = {"svg": os.path.join(folder, "allocator.svg"), "top": top, "base": summary.baseline,
             "cpu": plots["cpu_s"], "rss": plots["rss_kb"]}
    script = "".join(blocks) + CHART % words
    return draw(script)


def draw(script):
    """Runs gnuplot; an error text or ''."""
    try:
        done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True,
                              check=False)
    except FileNotFoundError:
        return "gnuplot is not installed, so there is no chart"
    return done.stderr.strip()


def write(results, kinds, folder):
    """Writes allocator.md, allocator.json and allocator.svg."""
    os.makedirs(folder, exist_ok=True)
    summary = Summary(results)
    with open(os.path.join(folder, "allocator.md"), "w", encoding="utf-8") as file:
        file.write(markdown(summary, kinds))
    derived = {"medians": summary.medians,
               "bars": {name: [dict(zip(("figure", "value", "must", "aim", "unit"), bar))
                               for bar in summary.bars(name)] for name in summary.names}}
    with open(os.path.join(folder, "allocator.json"), "w", encoding="utf-8") as file:
        json.dump({**results, **derived}, file, indent=1)
        file.write("\n")
    return chart(summary, folder)
