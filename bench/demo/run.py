#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows a leak: a server that never frees what libxml2 and regcomp give it, under the same load
natively and under undergo. Prints a table and draws resident memory over time."""

import argparse
import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(HERE, "..", "..", "scripts")]

import gctrace
from report import number, text_table

STEP = 0.05  # seconds between two readings of resident memory


def resident_mb(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        found = re.search(r"VmRSS:\s+(\d+)", status.read())
        return int(found.group(1)) / 1024 if found else 0.0


def serve(args, library):
    """One server under load: (readings of memory, figures of the load, CPU seconds, stops)."""
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
    if library:
        env.update(LD_PRELOAD=library, GODEBUG="gctrace=1")
    folder = os.path.join(args.build, "bench", "demo")
    server = subprocess.Popen([os.path.join(folder, "leaky_server")], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().strip()
        if not port:
            raise RuntimeError("the server did not start: " + server.stderr.read().strip())
        load = subprocess.Popen([os.path.join(folder, "load"), port, str(args.seconds),
                                 str(args.rate)], stdout=subprocess.PIPE, text=True)
        readings, start = [], time.monotonic()
        while load.poll() is None:
            readings.append((time.monotonic() - start, resident_mb(server.pid)))
            time.sleep(STEP)
        if load.returncode != 0:
            raise RuntimeError("the load was not served right")
        with open("/proc/%d/stat" % server.pid, encoding="ascii") as stat:
            words = stat.read().rpartition(") ")[2].split()
        cpu = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        server.kill()
        _, trace = server.communicate()
    figures = {name: float(value) for name, value in
               (line.split() for line in load.stdout.read().splitlines())}
    cycles = [fields for kind, fields in gctrace.parse(trace.splitlines()) if kind == "gc"]
    stops = [c[stop] for c in cycles for stop in ("stop1_ms", "stop2_ms")]
    return readings, figures, cpu, stops, len(cycles)


def table(runs, seconds):
    rows = [["a leaking server", "requests", "answer p50", "p99", "CPU"]
            + ["RSS at %g s" % (seconds * part) for part in (0.25, 0.5, 0.75, 1)]
            + ["collections", "longest stop"]]
    for name, (readings, figures, cpu, stops, cycles) in runs.items():
        at = [next((mb for t, mb in readings if t >= seconds * part), readings[-1][1])
              for part in (0.25, 0.5, 0.75, 1)]
        rows.append([name, number(figures["requests"], 0), number(figures["p50_us"], 0) + " us",
                     number(figures["p99_us"], 0) + " us", number(cpu) + " s"]
                    + [number(mb, 0) + " MB" for mb in at]
                    + [str(cycles) if cycles else "-",
                       number(max(stops), 2) + " ms" if stops else "-"])
    return text_table(rows)


CHART = """
set terminal %(terminal)s size 900,480 font 'sans,12'
set output '%(output)s'
set title 'Resident memory of a server that never frees its XML documents and regular expressions'
set xlabel 'seconds under load'
set ylabel 'MB'
set yrange [0:*]
set grid lc rgb '#dddddd'
set key top left
plot %(plots)s
"""
COLOURS = {"natively": "#9e9e9e", "under undergo": "#3367d6"}


def chart(runs, folder):
    """Draws leak.svg and leak.png; returns their names, or an error text."""
    os.makedirs(folder, exist_ok=True)
    blocks, plots, made = [], [], []
    for i, (name, run) in enumerate(runs.items()):
        lines = "\n".join("%.3f %.2f" % reading for reading in run[0])
        blocks.append("$run%d << END\n%s\nEND\n" % (i, lines))
        plots.append("$run%d using 1:2 with lines lw 2.5 lc rgb '%s' title '%s'"
                     % (i, COLOURS[name], name))
    for ending, terminal in (("svg", "svg background rgb 'white'"), ("png", "pngcairo")):
        output = os.path.join(folder, "leak." + ending)
        script = "".join(blocks) + CHART % {"terminal": terminal, "output": output,
                                            "plots": ", ".join(plots)}
        try:
            done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True,
                                  check=False)
        except FileNotFoundError:
            return "no chart: gnuplot is not installed"
        if done.returncode == 0:
            made.append(output)
    return "chart: " + " and ".join(made) if made else "no chart: gnuplot failed"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="build directory (default: build)")
    parser.add_argument("--seconds", type=int, default=6, help="length of each run (default: 6)")
    parser.add_argument("--rate", type=int, default=1500, help="requests a second (default: 1500)")
    args = parser.parse_args()
    if not os.path.exists(os.path.join(args.build, "bench", "demo", "leaky_server")):
        print("The leaking server was not built: libxml2-dev is missing (make deps).")
        return 0
    library = os.path.join(os.path.abspath(args.build), "libundergo.so")
    runs = {}
    try:
        for name, preload in (("natively", ""), ("under undergo", library)):
            runs[name] = serve(args, preload)
    except RuntimeError as error:
        sys.exit("demo: %s" % error)
    print(table(runs, args.seconds))
    print(chart(runs, os.path.join(args.build, "bench", "results")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
