#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the collector's diagnostic modes print: leak reports, hidden pointers with their call chains,
# bad frees, and the verdicts of `undergo audit`.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
undergo=$BUILD/undergo programs=$BUILD/tests/preload
unset LD_PRELOAD UNDERGO GOGC GOMEMLIMIT GODEBUG
export LC_ALL=C
ulimit -c 0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/undergo-safety.XXXXXX") || exit 2
trap 'rm -rf "$scratch"' EXIT

passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok $1"; }
fail() {
  failed=$((failed + 1))
  echo "FAIL $1: $2"
  sed 's/^/     | /' "$scratch/err" | cut -c 1-300 | tail -n 15
}
# expect NAME STATUS REGEX COMMAND...: the exit status, and a line of stderr; !REGEX: no such line.
expect() {
  local name=$1 want=$2 pattern=$3 status found=1
  shift 3
  # The inner shell keeps the word about a signal off the log.
  sh -c 'out=$1 err=$2; shift 2; "$@" </dev/null >"$out" 2>"$err"; exit $?' sh \
    "$scratch/out" "$scratch/err" timeout -k 3 60 "$@" 2>/dev/null
  status=$?
  if [ "$status" != "$want" ]; then fail "$name" "exit status $status, wanted $want"; return; fi
  grep -a -q -E -- "${pattern#!}" "$scratch/err" && found=0
  case $pattern in
    !*) [ $found = 1 ] || { fail "$name" "stderr matches ${pattern#!}"; return; } ;;
    *) [ $found = 0 ] || { fail "$name" "stderr does not match $pattern"; return; } ;;
  esac
  ok "$name"
}
# Name of the function that contains the Nth address of the call chain in a line of $scratch/err.
caller() { # REGEX N
  local offset
  offset=$(grep -a -E -- "$1" "$scratch/err" | head -n 1 | grep -o '(gc_[a-z]*+0x[0-9a-f]*)' |
    sed -n "$2p" | sed 's/.*+\(.*\))/\1/')
  [ -n "$offset" ] && addr2line -f -e "$program" "$offset" | head -n 1
}
expect_caller() { # NAME REGEX N FUNCTION
  local found
  found=$(caller "$2" "$3")
  if [ "$found" = "$4" ]; then ok "$1"; else fail "$1" "caller $3 is '$found', wanted $4"; fi
}

program=$programs/gc_report
report=(env UNDERGO=gc=report LD_PRELOAD="$BUILD/libundergo.so")
n='[0-9]+'
expect report-total 0 "^undergo: report: $n bytes in 10[0-9][0-9] objects cannot be reached$" \
  "${report[@]}" "$program"
expect report-small 0 "^undergo: report: 512000 bytes in 1000 objects from 0x" "${report[@]}" "$program"
expect_caller report-maker '1000 objects from' 1 MakeSmall
expect_caller report-caller '1000 objects from' 2 LeakSmall
expect_caller report-main '1000 objects from' 3 main
expect report-large 0 "^undergo: report: $n bytes in (49|50) objects from 0x" "${report[@]}" "$program"
expect_caller report-large-caller '(49|50) objects from' 1 LeakLarge
expect report-only-in-its-mode 0 '!^undergo: report' env LD_PRELOAD="$BUILD/libundergo.so" "$program"
expect report-of-nothing 0 '^undergo: report: 0 bytes in 0 objects cannot be reached$' \
  "${report[@]}" /bin/true

expect bad-free 134 '^undergo: free\(\): double free .*, caller 0x.* < 0x.*; UNDERGO=badfree' \
  env LD_PRELOAD="$BUILD/libundergo.so" "$program" twice
expect_caller bad-free-caller 'double free' 1 FreeTwice
expect_caller bad-free-main 'double free' 2 main

program=$programs/gc_poison
expect audit-passes 0 '^undergo: audit: passed: .*\(1 process, [0-9]+ collections, ' \
  "$undergo" audit "$program" clean
expect audit-written 1 "was written to although nothing pointed to it; it is from 0x" \
  "$undergo" audit -- "$program" small
expect_caller audit-written-where 'was written to' 1 Small
expect audit-touched 1 'was touched although nothing pointed to it, by 0x.*; it is from 0x' \
  "$undergo" audit "$program" pages
expect_caller audit-touched-by 'was touched' 1 Pages
expect audit-freed 1 'was freed by the program although nothing pointed to it; it is from 0x' \
  "$undergo" audit "$program" freed
expect_caller audit-freed-where 'was freed' 1 Make
expect audit-summary 1 '^undergo: poison: [0-9]+ uses of hidden objects from 0x' \
  "$undergo" audit "$program" freed
expect audit-verdict 1 '^undergo: audit: hidden pointers: [0-9]+ uses' \
  "$undergo" --gogc=50 audit --godebug=gccheckmark=1 "$program" freed
expect audit-counts-children 1 '^undergo: audit: hidden pointers: 1 use of .*\([23] processes' \
  "$undergo" audit sh -c "$program small & exit 0"
expect audit-too-small 3 '^undergo: audit: no verdict: the heap was too small' \
  "$undergo" audit /bin/true
expect audit-own-malloc 3 '^undergo: audit: no verdict: no process could be collected' \
  "$undergo" audit "$programs/own_malloc"
expect audit-failure 4 '^undergo: audit: the program ended with status 7, and no hidden' \
  "$undergo" audit sh -c 'exit 7'
expect audit-signal 4 '^undergo: audit: the program was killed by signal 9, and no hidden' \
  "$undergo" audit sh -c 'kill -9 $$'
expect audit-without-program 2 '^undergo: no program given' "$undergo" audit
expect audit-not-found 127 '^undergo: ' "$undergo" audit ./no-such-program
printf '#!/bin/sh\necho "$@"\n' >"$scratch/audit"
chmod +x "$scratch/audit"
expect a-program-called-audit 0 '!audit' env PATH="$scratch:$PATH" "$undergo" -- audit x
# The auditor hands signals on, also to what a daemon leaves behind.
"$undergo" audit sh -c 'sleep 30 & exit 0' 2>"$scratch/err" &
auditor=$!
sleep 1
kill $auditor
wait $auditor
status=$?
if [ $status = 3 ]; then ok audit-forwards-signals; else fail audit-forwards-signals "status $status"; fi

echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
