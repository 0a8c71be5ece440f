#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts what the hot paths of an allocator execute and compares with the golden file.

The calls are single-stepped (bench/support/steptrace.c) and the instructions classified from
objdump's text. Of many repetitions the most frequent path is the hot one; the mean over all of
them, refills and slow paths included, is printed but not compared.
"""

import argparse
import collections
import os
import re
import subprocess
import sys

COLUMNS = ("instructions", "loads", "stores", "stack", "locked", "taken", "calls")
HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(os.path.dirname(HERE), "tests", "golden", "fastpath.golden")
SKIPPED = 77

# Instructions that read a memory operand in last place instead of writing it.
READS_LAST = re.compile(
    r"^(cmp|test|bt$|btw|btl|btq|v?u?comis|v?ptest|jmp|call|push|mul|imul|div|idiv|prefetch)")
# Instructions that write it without reading.
WRITES_LAST = re.compile(r"^(v?mov|set|pop|v?stmxcsr|movnt|rdfsbase|fst)")
NO_ACCESS = re.compile(r"^(lea|nop|endbr64|data16|cs nop|xchg %ax,%ax)")


class Failure(Exception):
    """Something that ends the script with one line."""


def disassemble(library):
    """Offset -> (text, length) for every instruction of the library."""
    listing = subprocess.run(["objdump", "-d", "-w", library], capture_output=True, text=True,
                             check=True).stdout
    code = {}
    for line in listing.splitlines():
        found = re.match(r"^\s+([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$", line)
        if found:
            text = found.group(3).split("#")[0].split("<")[0].strip()
            code[int(found.group(1), 16)] = (text, len(found.group(2).split()))
    return code


def operands(text):
    """Splits AT&T operands at the commas outside parentheses."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [part.strip() for part in parts + [current] if part.strip()]


def is_memory(operand):
    return "(" in operand or re.match(r"^\*?%[fg]s:", operand) is not None


def classify(text):
    """(loads, stores, stack accesses, locked) of one instruction."""
    if NO_ACCESS.match(text):
        return 0, 0, 0, 0
    locked = text.startswith("lock ")
    text = re.sub(r"^(lock|rep|repz|repnz|bnd|notrack)\s+", "", text)
    name, _, rest = text.partition(" ")
    parts = operands(rest)
    stack = 1 if re.match(r"^(push|pop|call|ret|leave)", name) else 0
    if not any(map(is_memory, parts)):
        return 0, 0, stack, int(locked)
    if not is_memory(parts[-1]) or READS_LAST.match(name):
        loads, stores = 1, 0
    elif WRITES_LAST.match(name):
        loads, stores = 0, 1
    else:
        loads, stores = 1, 1
    if name.startswith("xchg"):
        loads, stores, locked = 1, 1, True
    if name.startswith(("stos", "movs")) and "%es:" in rest:
        loads, stores = (1, 1) if name.startswith("movs") else (0, 1)
    return loads, stores, stack, int(locked)


def count(path, code):
    """The columns of one executed path."""
    totals = dict.fromkeys(COLUMNS, 0)
    for here, following in zip(path, path[1:] + [None]):
        if here == "x":
            totals["calls"] += 1
            continue
        if here not in code:
            raise Failure("no instruction at offset %#x in the disassembly" % here)
        text, length = code[here]
        loads, stores, stack, locked = classify(text)
        totals["instructions"] += 1
        totals["loads"] += loads
        totals["stores"] += stores
        totals["stack"] += stack
        totals["locked"] += locked
        if text.startswith("j") and following not in (None, here + length):
            totals["taken"] += 1
    return totals


def build_tracer(build):
    """The stepper of the build directory, compiled when it is not there."""
    tracer = os.path.join(build, "bench", "steptrace")
    source = os.path.join(os.path.dirname(HERE), "bench", "support", "steptrace.c")
    if not os.path.exists(tracer) or os.path.getmtime(tracer) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(tracer), exist_ok=True)
        subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-fno-builtin", source,
                        "-o", tracer],
                       check=True)
    return tracer


def trace(library, build, undergo_env):
    """Case -> list of executed paths, each a list of offsets and "x"."""
    env = {"PATH": os.environ.get("PATH", ""), "UNDERGO": undergo_env}
    done = subprocess.run([build_tracer(build), library], env=env, capture_output=True, text=True,
                          check=False)
    if done.returncode == SKIPPED:
        sys.stderr.write("fastpath: skipped: %s" % done.stderr)
        sys.exit(SKIPPED)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or "steptrace failed")
    paths = collections.OrderedDict()
    for line in done.stdout.splitlines():
        name, _, steps = line.rpartition(":")
        paths.setdefault(name, []).append([s if s == "x" else int(s, 16) for s in steps.split()])
    return paths


def compiler_of(library):
    done = subprocess.run(["readelf", "-p", ".comment", library], capture_output=True, text=True,
                          check=False)
    names = sorted(set(re.findall(r"\]\s+(.*\S)", done.stdout)))
    return "; ".join(names) or "unknown"


def measure(library, build, undergo_env):
    """Returns (lines for the golden file, lines with the means)."""
    code = disassemble(library)
    lines, means = [], []
    for name, paths in trace(library, build, undergo_env).items():
        common = collections.Counter(map(tuple, paths)).most_common(1)[0][0]
        totals = count(list(common), code)
        lines.append("%-22s" % name + "".join(" %s %d" % (key, totals[key]) for key in COLUMNS))
        mean = sum(sum(step != "x" for step in path) for path in paths) / len(paths)
        share = sum(tuple(path) == common for path in paths) / len(paths)
        means.append("%-22s mean instructions %.1f, hot path taken %.0f %% of %d calls"
                     % (name, mean, share * 100, len(paths)))
    return lines, means


def listing(library, build, undergo_env, case):
    """The hot path of one case as assembly, to see where the counts come from."""
    paths = trace(library, build, undergo_env).get(case)
    if not paths:
        raise Failure("--list '%s': no such case" % case)
    code = disassemble(library)
    for step in collections.Counter(map(tuple, paths)).most_common(1)[0][0]:
        if step == "x":
            print("        (outside)")
        else:
            text = code[step][0]
            print("%8x  %-50s %s" % (step, text, "".join(
                letter * number for letter, number in zip("LSKX", classify(text)))))


def read_golden():
    try:
        with open(GOLDEN, encoding="ascii") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise Failure("%s does not exist; make it with --update"
                      % os.path.relpath(GOLDEN)) from None
    compiler = next((line[12:] for line in lines if line.startswith("# compiler: ")), "")
    return compiler, [line for line in lines if line and not line.startswith("#")]


def check(lines, compiler):
    golden_compiler, golden = read_golden()
    if compiler != golden_compiler:
        print("fastpath: not compared: built by '%s', the golden file by '%s'"
              % (compiler, golden_compiler))
        return SKIPPED
    if lines == golden:
        print("fastpath: %d cases as recorded" % len(lines))
        return 0
    for line in golden:
        if line not in lines:
            print("- " + line)
    for line in lines:
        if line not in golden:
            print("+ " + line)
    print("fastpath: the hot paths changed; if that is wanted: scripts/fastpath_golden.py --update")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="?", default="build/libundergo.so")
    parser.add_argument("--build", default="build", help="build directory (default: build)")
    parser.add_argument("--undergo-env", default="gc=off,sched=off", metavar="TEXT")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true",
                        help="compare with tests/golden/fastpath.golden")
    action.add_argument("--update", action="store_true", help="rewrite it")
    action.add_argument("--list", metavar="CASE",
                        help="print the hot path of a case, like 'malloc(64)'; L, S, K, X mark "
                             "loads, stores, stack accesses, locked instructions")
    args = parser.parse_args()
    if not os.path.exists(args.library):
        sys.stderr.write("fastpath: '%s': no such library\n" % args.library)
        return 2
    try:
        if args.list:
            listing(args.library, args.build, args.undergo_env, args.list)
            return 0
        lines, means = measure(args.library, args.build, args.undergo_env)
        if args.check:
            return check(lines, compiler_of(args.library))
        if args.update:
            os.makedirs(os.path.dirname(GOLDEN), exist_ok=True)
            with open(GOLDEN, "w", encoding="ascii") as file:
                file.write("# What hot calls execute; by scripts/fastpath_golden.py --update.\n"
                           "# compiler: %s\n%s\n"
                           % (compiler_of(args.library), "\n".join(lines)))
        print("\n".join(lines + [""] + means))
        return 0
    except Failure as failure:
        sys.stderr.write("fastpath: %s\n" % failure)
        return 1


if __name__ == "__main__":
    sys.exit(main())
