#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# scripts/undergo_gdb.py finds and shows threads that have no kernel thread.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
passed=0 failed=0 skipped=0
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed -eq 0 ]
  exit
}
skip() { skipped=1; echo "skip gdb: $1"; finish; }

command -v gdb >/dev/null || skip "no gdb"
program=$(mktemp) || exit 2
out=$(mktemp) || exit 2
trap 'rm -f "$program" "$out"' EXIT
${CC:-gcc} -g -O1 -pthread tests/gdb/parked.c -o "$program" || exit 2
timeout -k 5 120 gdb -batch -nx -ex 'set debuginfod enabled off' -ex 'set confirm off' \
  -ex "set environment LD_PRELOAD $(realpath "$BUILD/libundergo.so")" \
  -ex run -ex 'source scripts/undergo_gdb.py' \
  -ex 'undergo threads' -ex 'undergo bt 2' -ex 'undergo switch 3' -ex 'bt' -ex 'undergo back' \
  -ex 'undergo bt 77' "$program" >"$out" 2>&1 </dev/null
grep -q 'ptrace: Operation not permitted\|Could not trace' "$out" && skip "no ptrace here"

check() { # LABEL CONDITION...
  local label=$1
  shift
  if "$@"; then passed=$((passed + 1)); echo "ok   gdb $label"; return; fi
  failed=$((failed + 1))
  echo "FAIL gdb $label"
  tail -n 40 "$out" | sed 's/^/     | /'
}
check "lists the threads that sleep" test "$(grep -c ' sleep .* Sleeper' "$out")" = 3
check "lists main" grep -q ' 1 .*running .* main' "$out"
check "shows and switches" test "$(grep -c 'in ParkedHere' "$out")" -ge 2
check "gives the registers back" grep -q 'raise\|pthread_kill' <(tail -n 4 "$out")
check "names what is not there" grep -q 'no thread 77' "$out"
finish
