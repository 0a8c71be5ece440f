#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every way of noticing writes passes the same suite: the collector's programs of tests/preload with
# UNDERGO=tracking=snapshot and =stop (the best way is what the preload suite runs). With PACE=quick
# a part of them, and never the long runs, which are the preload suite's.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
PACE=${PACE:-quick}

passed=0 failed=0 skipped=0
# suite TRACKING GLOB
suite() {
  local out p f s
  echo "-- tracking=$1"
  out=$(tests/run.sh --quick --suite preload --so "$BUILD/libundergo.so" --only "$2" \
    --setting "tracking=$1")
  echo "$out"
  read -r p _ f _ s _ < <(tail -n 1 <<<"$out")
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# The trace names what is used, from the start on.
named() { # TRACKING
  local line
  line=$(UNDERGO=tracking=$1 GODEBUG=gctrace=1 LD_PRELOAD=$(realpath "$BUILD/libundergo.so") \
    /bin/true 2>&1)
  if grep -q "^undergo: collector on: writes are noticed by $1, scan kernel [a-z0-9]*, [0-9]* procs$" \
    <<<"$line"; then
    passed=$((passed + 1))
    echo "ok   the trace names $1"
  else
    failed=$((failed + 1))
    echo "FAIL the trace does not name $1: $line"
  fi
}

named snapshot
named stop
if [ "$PACE" = all ]; then
  suite snapshot 'gc_*'
  suite stop 'gc_*'
else
  suite snapshot 'gc_[lr][io]*'
  suite stop 'gc_ro*'
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
