#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the scheduler: the same thread programs natively (NPTL), under undergo, and beside
them goroutines, in interleaved rounds. Writes bench/results/sched.{md,json,svg}; see
bench/README.md."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(HERE, "..", "..", "scripts")]

import driver
import gctrace
import run as allocator_bench
import runner
import schedreport

SUBJECTS = ("NPTL", "undergo", "Go")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Row:
    """A program of bench/sched/ with its arguments, or a method of Session that runs a server."""

    name: str
    program: str
    arguments: tuple
    quick: tuple
    about: str
    subjects: tuple = SUBJECTS
    method: str = "run_program"
    times: int = 1  # in each round: more where runs are short and the bar is near


C_ONLY = ("NPTL", "undergo")
ROWS = (
    Row("create+join", "switches", ("create", "20000"), ("create", "3000"),
        "one thread at a time"),
    Row("detached create", "switches", ("detached", "20000"), ("detached", "3000"),
        "detached threads, a hundred at a time"),
    Row("mutex+cond switch", "switches", ("cond", "100000"), ("cond", "10000"),
        "two threads in turn, one condition each"),
    Row("semaphore switch", "switches", ("sem", "200000"), ("sem", "20000"),
        "two threads in turn; Go: channels"),
    Row("uncontended mutex", "switches", ("mutex", "20000000"), ("mutex", "5000000"),
        "lock and unlock, CPU time; five times a round", times=5),
    Row("contended mutex", "switches", ("contended", "4000000", "4"),
        ("contended", "400000", "4"), "four threads, one mutex"),
    Row("sched_yield", "switches", ("yield", "400000", "4"), ("yield", "40000", "4"),
        "four threads"),
    Row("pipe ping-pong", "switches", ("pipe", "100000"), ("pipe", "10000"),
        "two threads, two pipes, one way"),
    Row("10 k sleepers", "many", ("sleep", "10000", "1000"), ("sleep", "2000", "1000"),
        "each sleeps a second, from start to the last join"),
    Row("100 k sleepers", "many", ("sleep", "100000", "1000"), ("sleep", "20000", "1000"),
        "the same", ("undergo", "Go")),
    Row("1 M sleepers", "many", ("sleep", "1000000", "1000"), ("sleep", "50000", "1000"),
        "the same", ("undergo", "Go")),
    Row("10 k parked", "many", ("park", "10000"), ("park", "2000"),
        "wait for a semaphore; memory and kernel threads meanwhile"),
    Row("100 k parked", "many", ("park", "100000"), ("park", "10000"),
        "the same; NPTL stops at the system's limit"),
    Row("1 M parked", "many", ("park", "1000000"), ("park", "50000"), "the same",
        ("undergo", "Go")),
    Row("pool", "pool", ("1000", "300000"), ("1000", "30000"),
        "1,000 threads take tasks of about a microsecond from one queue"),
    Row("compute", "compute", ("100000",), ("10000",),
        "one thread for each processor; nine times a round", C_ONLY, times=9),
    Row("OpenMP", "openmp", ("200000", "1000"), ("200000", "50"), "short parallel loops", C_ONLY),
    Row("stop", "stop", ("10000", "20"), ("2000", "5"),
        "stops of collections, some of them forced; 10,000 threads parked, two allocate"),
    Row("echo, 10 k connections", "echo", ("10000", "8"), ("1000", "2"),
        "a thread for each connection; one client, run natively", method="run_echo"),
    Row("memcached", "memcached", ("200", "6"), ("50", "2"),
        "4 threads, 200 connections, a tenth of the requests sets", C_ONLY, "run_memcached"),
    Row("MariaDB, 64 clients", "mariadbd", ("40000",), ("2000",),
        "mysqlslap, a thread for each connection", C_ONLY, "run_mariadb"),
)


class Session(driver.Session):
    NAME = "sched"
    SUFFIX = {"Go": "-go"}
    FAILURES = (runner.Failed, gctrace.BadLine, KeyError, OSError, subprocess.SubprocessError)

    def __init__(self, args):
        super().__init__(args)
        self.undergo_env = args.undergo_env

    headline = staticmethod(schedreport.headline)

    def environment(self, subject="NPTL"):
        env = super().environment()
        if subject == "undergo":
            env["LD_PRELOAD"] = self.library
            if self.undergo_env:
                env["UNDERGO"] = self.undergo_env
        return env

    def takes_part(self, row, subject):
        if subject not in row.subjects:
            return False
        if row.method in ("run_program", "run_echo"):
            return super().takes_part(row, subject)
        needed = {"run_memcached": ["memcached"],
                  "run_mariadb": ["mariadbd", "mariadb-install-db", "mysqlslap"]}[row.method]
        return all(shutil.which(name) for name in needed)

    def run_row(self, row, subject):
        return getattr(self, row.method)(row, subject)

    def run_program(self, row, subject):
        env = self.environment(subject)
        env.pop("LD_PRELOAD", None)  # the launcher that measures sets it
        traced = row.program == "stop" and subject != "NPTL"
        if traced:
            env["GODEBUG"] = "gctrace=1"
        figures, err = self.measure(row, subject, env)
        if traced:
            cycles = [fields for kind, fields in gctrace.parse(err.splitlines(True))
                      if kind == "gc"]
            if not cycles:
                raise runner.Failed("no collection in the trace")
            stops = sorted(max(c["stop1_ms"], c["stop2_ms"]) for c in cycles)
            figures["metrics"].update(stop_p50_ms=stops[len(stops) // 2], stop_max_ms=stops[-1])
        return figures

    def load(self, kind, port, connections, seconds, while_connected=None):
        """The load program against a server; returns its metrics."""
        process = subprocess.Popen([os.path.join(self.bin, "sched", "load"), kind, str(port),
                                    str(connections), str(seconds)], env=self.environment(),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            first = process.stdout.readline()
            if first == b"connected\n" and while_connected:
                time.sleep(float(seconds) / 2)
                while_connected()
            out, err = process.communicate(timeout=self.LIMIT_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise runner.Failed("load: " + runner.shorten(err))
        return driver.read_metrics(out)[0]

    def run_echo(self, row, subject):
        connections, seconds = self.arguments(row)
        begin = time.monotonic()
        server = subprocess.Popen([self.program(row, subject)], env=self.environment(subject),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        seen = {}
        try:
            port = int(server.stdout.readline() or 0)
            metrics = self.load("echo", port, connections, seconds,
                                lambda: seen.update(memory_of(server.pid)))
            cpu = cpu_of(server.pid)
            server.stdin.close()
            server.wait(timeout=20)
        finally:
            server.kill()
            server.wait()
        if server.returncode != 0:
            raise runner.Failed("the server ended with status %d: %s"
                                % (server.returncode, runner.shorten(server.stderr.read())))
        return {"wall_s": time.monotonic() - begin, "cpu_s": cpu, "rss_kb": seen["rss_kb"],
                "metrics": {**metrics, "memory_mb": seen["memory_kb"] / 1024,
                            "kernel_threads": seen["threads"]}}

    def run_memcached(self, row, subject):
        connections, seconds = self.arguments(row)
        begin, port = time.monotonic(), runner.free_port()
        server = subprocess.Popen(["memcached", "-u", "nobody", "-l", LOOPBACK, "-p", str(port),
                                   "-U", "0", "-t", "4", "-m", "256", "-c", "1024"],
                                  env=self.environment(subject), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            wait_for_port(server, port)
            metrics = self.load("memcached", port, connections, seconds)
            cpu, seen = cpu_of(server.pid), memory_of(server.pid)
            server.terminate()
            server.wait(timeout=20)
        finally:
            server.kill()
            server.wait()
        return {"wall_s": time.monotonic() - begin, "cpu_s": cpu, "rss_kb": seen["rss_kb"],
                "metrics": metrics}

    def run_mariadb(self, row, subject):
        database = self.prepare_mariadb()
        path = os.path.join(self.data, "db.sock")
        begin = time.monotonic()
        server = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--user=root", "--datadir=" + database,
             "--socket=" + path, "--skip-networking", "--innodb-buffer-pool-size=128M",
             "--innodb-flush-log-at-trx-commit=0", "--max-connections=200",
             "--pid-file=" + path + ".pid"],
            env=self.environment(subject), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        try:
            self.wait_for_mariadb(server, path)
            slap = subprocess.run(
                ["mysqlslap", "--no-defaults", "--socket=" + path, "--user=root",
                 "--concurrency=64", "--iterations=1", "--auto-generate-sql",
                 "--auto-generate-sql-load-type=mixed", "--auto-generate-sql-write-number=500",
                 "--number-of-queries=" + self.arguments(row)[0]],
                env=self.environment(), capture_output=True, text=True,
                timeout=self.LIMIT_SECONDS, check=False)
            found = re.search(r"Average number of seconds[^:]*: ([\d.]+)", slap.stdout)
            if slap.returncode != 0 or not found:
                raise runner.Failed("mysqlslap: " + (slap.stderr or slap.stdout)[-300:])
            cpu, seen = cpu_of(server.pid), memory_of(server.pid)
            server.terminate()
            server.communicate(timeout=60)
        except subprocess.TimeoutExpired as error:
            raise runner.Failed(str(error)) from None
        finally:
            server.kill()
            server.wait()
        if server.returncode != 0:
            raise runner.Failed("mariadbd ended with status %d" % server.returncode)
        return {"wall_s": time.monotonic() - begin, "cpu_s": cpu, "rss_kb": seen["rss_kb"],
                "metrics": {"s": float(found.group(1))}}

    def prepare_mariadb(self):
        database = os.path.join(self.data, "mariadb")
        if not os.path.exists(os.path.join(database, "mysql")):
            shutil.rmtree(database, ignore_errors=True)
            done = subprocess.run(
                ["mariadb-install-db", "--no-defaults", "--user=root", "--datadir=" + database,
                 "--auth-root-authentication-method=normal", "--skip-test-db"],
                env=self.environment(), capture_output=True, check=False)
            if done.returncode != 0:
                raise runner.Failed("mariadb-install-db: " + runner.shorten(done.stdout))
        return database

    def wait_for_mariadb(self, server, path):
        for _ in range(600):
            if server.poll() is not None:
                raise runner.Failed("mariadbd ended at once: "
                                    + runner.shorten(server.stderr.read()))
            ping = subprocess.run(["mariadb-admin", "--no-defaults", "--socket=" + path,
                                   "--user=root", "ping"], env=self.environment(),
                                  capture_output=True, check=False)
            if ping.returncode == 0:
                return
            time.sleep(0.05)
        raise runner.Failed("mariadbd does not answer")


def memory_of(pid):
    """What a server holds: its pages and page tables, and 16 KiB of kernel stack a thread."""
    with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as file:
        status = dict(re.findall(r"^(\w+):\s+(\d+)", file.read(), re.M))
    rss, threads = int(status["VmRSS"]), int(status["Threads"])
    return {"rss_kb": rss, "threads": threads,
            "memory_kb": rss + int(status["VmPTE"]) + 16 * threads}


def cpu_of(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_port(server, port):

    for _ in range(500):
        if server.poll() is not None:
            raise runner.Failed("the server ended at once: "
                                + runner.shorten(server.stderr.read()))
        try:
            socket.create_connection((LOOPBACK, port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise runner.Failed("the server does not listen")


def main():
    options = driver.Options(__doc__, [row.name for row in ROWS], SUBJECTS, "sched", "switches")
    options.add_argument("--undergo-env", default="", metavar="KEY=VALUE,...",
                         help="value of UNDERGO for undergo's runs (default: none)")
    args = options.read()
    session = Session(args)
    machine = driver.describe_machine(
        args, args.undergo_env or "(default)",
        "UNDERGO=" + args.undergo_env if args.undergo_env else "default settings")
    for name in ("kernel/pid_max", "kernel/threads-max", "vm/max_map_count"):
        machine[name.replace("/", ".")] = allocator_bench.first_match(
            r"^(\d+)", "/proc/sys/" + name)
    session.results["machine"] = machine
    rows = [row for row in ROWS if row.name in args.chosen]
    return driver.execute(
        args, session, [lambda: session.run_rows(rows, args.subjects)],
        lambda results: schedreport.Summary(results, {row.name: row.about for row in ROWS}))


if __name__ == "__main__":
    sys.exit(main())
