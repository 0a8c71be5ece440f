# SPDX-License-Identifier: Apache-2.0
"""Runs one workload under one allocator and returns what the kernel accounted to it."""

import glob
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import inputs

LIMIT_SECONDS = 300
EVENTS = ["instructions", "cycles", "branch-misses", "cache-misses", "dTLB-load-misses"]


class Failed(Exception):
    """A run that crashed, hung, or computed something else."""


class NotStarted(Exception):
    """A server that did not come up; the port may have been taken meanwhile."""


class Runner:
    def __init__(self, build, quick, undergo_env):
        self.bench = os.path.dirname(os.path.abspath(__file__))
        self.bin = os.path.join(os.path.abspath(build), "bench")
        self.data = os.path.join(self.bin, "data")
        self.quick = quick
        self.undergo_env = undergo_env
        os.makedirs(os.path.join(self.data, "home"), exist_ok=True)
        self.python = self._system_python()
        self.natives = {}

    @staticmethod
    def _system_python():
        for candidate in ("/usr/bin/python3", os.path.realpath(sys.executable)):
            if os.access(candidate, os.X_OK):
                return candidate
        return shutil.which("python3") or "python3"

    def environment(self, extra=None, undergo=False):
        """The whole environment of a run: nothing of the caller's gets in but PATH."""
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC",
               "HOME": os.path.join(self.data, "home"), "GIT_CONFIG_NOSYSTEM": "1"}
        env.update(extra or {})
        if undergo:
            env["UNDERGO"] = self.undergo_env
        return env

    def missing(self, row):
        return [program for program in row.needs if shutil.which(program) is None]

    def prepare(self, row):
        if row.prepare:
            getattr(inputs, row.prepare)(self.data, self.environment())

    def preload_for(self, allocator, program):
        """The LD_PRELOAD value. A program that is linked with an allocator of its own (Debian's
        redis-server is, with jemalloc) gets libc preloaded for the native run."""
        if allocator.path:
            return allocator.path
        path = shutil.which(program) or program
        if path not in self.natives:
            listing = subprocess.run(["ldd", path], capture_output=True, text=True,
                                     check=False).stdout
            own = re.search(r"lib(jemalloc|tcmalloc|mimalloc)", listing)
            libc = re.search(r"libc\.so\.6 => (\S+)", listing)
            self.natives[path] = libc.group(1) if own and libc else ""
        return self.natives[path]

    def measure(self, allocator, command, env, counters=False):
        """Runs one command; returns (figures, stdout)."""
        result = os.path.join(self.data, "measured-%d" % os.getpid())
        counts = result + ".perf"
        for stale in (result, counts):
            if os.path.exists(stale):
                os.unlink(stale)
        preload = self.preload_for(allocator, command[0])
        if counters:
            # perf itself must not be preloaded, so env(1) sets the variable behind it.
            command = ["perf", "stat", "-x", ",", "-o", counts, "-e", ",".join(EVENTS), "--",
                       "env", "LD_PRELOAD=" + preload, *command]
            preload = ""
        launch = [os.path.join(self.bin, "measure"), result, preload, *command]
        process = subprocess.Popen(launch, env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed("no end after %d s" % LIMIT_SECONDS) from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        figures = read_figures(result, err)
        if counters:
            figures["counters"] = read_counters(counts)
        return figures, out

    def run(self, row, allocator, counters=False):
        """One run of one row; returns figures with the checksum and metrics that it printed."""
        env = self.environment(row.env, allocator.is_undergo)
        if row.runner == "redis":
            return self.run_redis(allocator, env)
        total, digest, metrics = None, hashlib.sha256(), {}
        for step in (row.quick if self.quick and row.quick else row.steps):
            command = [word.format(bin=self.bin, bench=self.bench, data=self.data,
                                   python=self.python)
                       for word in step]
            figures, out = self.measure(allocator, command, env, counters)
            total = add_figures(total, figures)
            for line in out.splitlines(keepends=True):
                if line.startswith(b"metric "):
                    _, name, value = line.split()
                    metrics[name.decode()] = float(value)
                else:
                    digest.update(line)
        if row.output:
            with open(row.output.format(data=self.data), "rb") as file:
                digest.update(file.read())
        total["checksum"] = digest.hexdigest()[:16]
        total["metrics"] = metrics
        return total

    # Redis: the server is measured, the load generator is not.

    def run_redis(self, allocator, env):
        last = None
        for _ in range(3):  # the port may be taken between choosing and binding it
            try:
                return self.run_redis_once(allocator, env, free_port())
            except NotStarted as error:
                last = error
        raise Failed("redis-server did not start: %s" % last)

    def run_redis_once(self, allocator, env, port):
        result = os.path.join(self.data, "measured-redis-%d" % os.getpid())
        if os.path.exists(result):
            os.unlink(result)
        server = subprocess.Popen(
            [os.path.join(self.bin, "measure"), result, self.preload_for(allocator, "redis-server"),
             "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", self.data],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            pid = int(self.wait_for_redis(server, port))
            if os.getsid(pid) != server.pid:
                raise NotStarted("somebody else's server on the port")
            scale = 5 if self.quick else 1
            for load in REDIS_LOADS:
                requests = str(load[0] // scale)
                subprocess.run(["redis-benchmark", "-p", str(port), "-q", "-c", "20", "-P", "32",
                                "-n", requests, *load[1:]], env=self.environment(), check=True,
                               stdout=subprocess.DEVNULL, timeout=LIMIT_SECONDS)
            peak = read_peak_rss(pid)
            checks = [redis_call(port, *call) for call in REDIS_CHECKS]
            redis_call(port, "SHUTDOWN", "NOSAVE", quiet=True)
            out, _ = server.communicate(timeout=30)
        except (subprocess.SubprocessError, OSError) as error:
            raise Failed(str(error)) from None
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.communicate()
        figures = read_figures(result, out)
        figures["rss_kb"] = peak
        figures["checksum"] = hashlib.sha256(repr(checks).encode()).hexdigest()[:16]
        figures["metrics"] = {}
        return figures

    @staticmethod
    def wait_for_redis(server, port):
        for _ in range(500):
            if server.poll() is not None:
                raise NotStarted("it ended at once")
            try:
                info = redis_call(port, "INFO", "server")
                return re.search(r"process_id:(\d+)", info).group(1)
            except OSError:
                time.sleep(0.02)
        raise Failed("redis-server does not answer")


REDIS_LOADS = [
    (600000, "-r", "120000", "-d", "64", "-t", "set"),
    (200000, "-r", "30000", "-d", "700", "-t", "set"),
    (400000, "-r", "120000", "-t", "get,incr"),
    (300000, "-r", "100000", "-d", "40", "-t", "lpush,rpush,sadd,hset,zadd"),
    (160000, "-t", "lpop,spop"),
    (20000, "-t", "lrange_100"),
    (60000, "-r", "3000", "append", "log:__rand_int__", "some more text for the log entry"),
]

# What does not depend on the load generator's random keys.
REDIS_CHECKS = [("LLEN", "mylist"), ("TYPE", "myhash"), ("TYPE", "myzset")]


def redis_call(port, *words, quiet=False):
    """One command over a fresh connection; returns the reply's text."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        request = "*%d\r\n" % len(words) + "".join("$%d\r\n%s\r\n" % (len(w), w) for w in words)
        connection.sendall(request.encode())
        if quiet:
            return ""
        data = b""
        while True:
            data += connection.recv(65536)
            head, separator, rest = data.partition(b"\r\n")
            if separator and (not head.startswith(b"$") or len(rest) >= int(head[1:]) + 2):
                return data.decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_peak_rss(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))


def read_figures(path, message):
    if not os.path.exists(path):
        raise Failed("could not be started: %s" % shorten(message))
    with open(path, encoding="ascii") as file:
        words = [int(word) for word in file.read().split()]
    os.unlink(path)
    status, killer, user, system, wall, rss, minor, major, switches = words
    if killer:
        raise Failed("killed by signal %d: %s" % (killer, shorten(message)))
    if status:
        raise Failed("exit status %d: %s" % (status, shorten(message)))
    return {"cpu_s": (user + system) / 1e6, "user_s": user / 1e6, "system_s": system / 1e6,
            "wall_s": wall / 1e6, "rss_kb": rss, "minor_faults": minor, "major_faults": major,
            "switches": switches}


def add_figures(total, more):
    if total is None:
        return more
    for key, value in more.items():
        if key == "rss_kb":
            total[key] = max(total[key], value)
        elif key == "counters":
            total[key] = {event: total[key].get(event, 0) + count for event, count in value.items()}
        else:
            total[key] += value
    return total


def read_counters(path):
    counts = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            words = line.split(",")
            if len(words) > 2 and words[0].replace(".", "").isdigit():
                counts[words[2].partition(":")[0]] = float(words[0])
    return counts


def counters_work():
    """Whether `perf stat` counts instructions here; most virtual machines have no counters."""
    if shutil.which("perf") is None:
        return False
    trial = subprocess.run(["perf", "stat", "-x", ",", "-e", "instructions", "true"],
                           capture_output=True, text=True, check=False)
    return trial.returncode == 0 and trial.stderr.split(",")[0].isdigit()


def shorten(message):
    lines = message.decode("utf-8", "replace").strip().splitlines()
    return " | ".join(lines[-3:])[:300]


def find_library(pattern):
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        found = sorted(glob.glob(os.path.join(folder, pattern)))
        if found:
            return found[0]
    return ""
