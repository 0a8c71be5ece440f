# SPDX-License-Identifier: Apache-2.0
"""The table of workloads. Adding one is adding one row here (see README.md)."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One workload. Steps are commands run one after the other and accounted together; the words
    {bin}, {bench}, {data} and {python} in them are replaced. `quick` replaces `steps` for --quick.
    """

    name: str
    kind: str
    steps: tuple = ()
    quick: tuple = ()
    needs: tuple = ()  # programs that must be installed, else the row is skipped and said so
    env: dict = field(default_factory=dict)
    prepare: str = ""  # function in inputs.py that makes the input, once per build directory
    runner: str = "steps"  # "steps" or "redis"
    output: str = ""  # a file whose contents are part of the checksum


def own(name, kind, command, quick):
    """A workload of ours: `command` and `quick` are 'program arguments' below build/bench/."""
    return Row(name, kind, steps=(["{bin}/" + command.split()[0], *command.split()[1:]],),
               quick=(["{bin}/" + quick.split()[0], *quick.split()[1:]],))


OWN = [
    own("bignum", "symbolic, numbers of 8-48 B", "bignum", "bignum 300000"),
    own("rewrite", "symbolic, expression trees", "rewrite", "rewrite 600"),
    own("solver", "symbolic, terms and backtracking", "solver", "solver 10 50"),
    own("nbody", "octree, rebuilt each step", "nbody", "nbody 60000 2"),
    own("server", "objects handed to the next thread", "server", "server 4 20"),
    own("pipeline", "2 threads allocate, 2 free", "pipeline", "pipeline 2 2 1200"),
    own("mailbox", "mixed sizes swapped by 4 threads", "mailbox", "mailbox 4 6"),
    own("sharing-active", "false sharing, own objects", "sharing active", "sharing active 2 400"),
    own("sharing-passive", "false sharing, inherited", "sharing passive", "sharing passive 2 400"),
    own("large", "blocks of 5-25 MB", "large", "large 60"),
    own("medium", "buffers of 8-512 KiB", "medium", "medium 30000"),
    own("leak", "small blocks never freed", "leak", "leak 100"),
    own("churn", "big live set, random sizes", "churn", "churn 800000"),
    own("lifetime-1", "random lifetimes, 1 thread", "lifetime 1", "lifetime 1 3000000"),
    own("lifetime-2", "random lifetimes, 2 threads", "lifetime 2", "lifetime 2 2000000"),
    own("grow", "realloc: strings and vectors", "grow", "grow 9"),
    own("zeroed", "calloc", "zeroed", "zeroed 2000000"),
    own("aligned", "posix_memalign and relatives", "aligned", "aligned 1500000"),
    own("containers", "C++ maps, strings, pointers", "containers", "containers 3"),
    own("hotpair", "malloc+free of 64 B, hot", "hotpair", "hotpair 40000000"),
    own("batch-lifo", "batches, last in first out", "batch lifo", "batch lifo 5000000"),
    own("batch-fifo", "batches, first in first out", "batch fifo", "batch fifo 5000000"),
    own("threads", "12,000 short-lived threads", "threads", "threads 3000"),
    own("document", "parse, edit, write a document", "document", "document 3"),
    own("lru", "cache with drifting sizes", "lru", "lru 400000"),
    own("phases", "size classes by turns", "phases", "phases 1"),
]

GIT = ["git", "-C", "{data}/repository", "-c", "gc.auto=0", "-c", "pack.threads=1"]

REAL = [
    Row("redis", "redis-server, pipelined mix", runner="redis",
        needs=("redis-server", "redis-benchmark", "redis-cli")),
    Row("python", "python3, PYTHONMALLOC=malloc",
        steps=(["{python}", "{bench}/programs/script.py", "6"],),
        quick=(["{python}", "{bench}/programs/script.py", "1"],),
        needs=("python3",), env={"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}),
    Row("g++", "g++ -O1 of templated C++", needs=("g++",), output="{data}/templates.o",
        steps=(["g++", "-std=c++17", "-O1", "-c", "{bench}/programs/templates.cc", "-o",
                "{data}/templates.o"],)),
    Row("git", "log, blame, repack, gc", needs=("git",), prepare="make_repository",
        steps=(GIT + ["log", "--stat", "-p", "--no-color"],
               GIT + ["blame", "-s", "dir0/file0.txt"],
               GIT + ["repack", "-a", "-d", "-f", "-q"],
               GIT + ["gc", "-q", "--prune=now"]),
        quick=(GIT + ["log", "--stat", "--no-color"], GIT + ["repack", "-a", "-d", "-f", "-q"])),
    Row("sqlite", "sqlite3, in memory", needs=("sqlite3",),
        steps=(["sqlite3", ":memory:", ".read {bench}/programs/queries.sql"],)),
]

ROWS = OWN + REAL
