#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Our traces are Go's: scripts/gctrace.py reads what a Go program printed (a record of Go 1.19, and
# the installed Go's if there is one) and refuses what is nearly the same; each line that it read,
# given to our own formatter, comes out as it was.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
CXX=${CXX:-g++}
here=tests/gctrace
unset LD_PRELOAD UNDERGO GODEBUG GOGC GOMEMLIMIT GOMAXPROCS

work=$(mktemp -d "${TMPDIR:-/tmp}/undergo-gctrace-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok $1"; }
fail() { failed=$((failed + 1)); echo "FAIL $1: $2"; }
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }

# expect NAME COMMAND...: it must succeed.
expect() {
  local name=$1 out
  shift
  if out=$("$@" 2>&1); then ok "$name"; else fail "$name" "$(head -c 400 <<<"$out")"; fi
}

# refuse NAME LINE: the reader must not take it for a trace line, and must not pass over it.
refuse() {
  if scripts/gctrace.py <<<"$2" >"$work/out" 2>&1; then
    fail "refuses $1" "accepted: $2"
  elif ! grep -q "not in Go's format" "$work/out"; then
    fail "refuses $1" "$(head -c 400 "$work/out")"
  else
    ok "refuses $1"
  fi
}

$CXX -std=c++20 -O1 -Wall -Wextra -Werror -Ilib $here/format.cc "$BUILD/libgc.a" \
  "$BUILD/libbase.a" -o "$work/format" || exit 2

# compare NAME LOG
compare() {
  expect "$1: read" scripts/gctrace.py --check "$2"
  expect "$1: printed again" python3 $here/roundtrip.py "$work/format" "$2"
}

compare 'Go 1.19 (record)' $here/go-1.19.log

if ! command -v go >/dev/null; then
  skip 'installed Go' 'no go command (apt install golang-go)'
elif ! HOME=$work GOCACHE=$work/cache GO111MODULE=off GOFLAGS='' \
    timeout 300 go build -o "$work/garbage" $here/garbage.go >"$work/out" 2>&1; then
  fail 'installed Go' "$(head -c 400 "$work/out")"
else
  GODEBUG=gctrace=1,gcpacertrace=1,scavtrace=1 timeout 60 "$work/garbage" 2>"$work/go.log"
  compare 'installed Go' "$work/go.log"
fi

# What the library prints is read by the same reader.
CC=${CC:-gcc}
if [ -e "$BUILD/libundergo.so" ]; then
  $CC -O1 -Wall -Wextra -Werror $here/garbage.c -o "$work/garbage-c" || exit 2
  for settings in madvdontneed=1 madvdontneed=0; do
    env LD_PRELOAD="$PWD/$BUILD/libundergo.so" GOMEMLIMIT=200MiB \
      GODEBUG=gctrace=1,gcpacertrace=1,scavtrace=1,$settings "$work/garbage-c" 2>"$work/own.log" ||
      fail "own lines, $settings" "exit status $?"
    expect "own lines, $settings: read" scripts/gctrace.py --check "$work/own.log"
    expect "own lines, $settings: all kinds" \
      sh -c "for kind in '^gc ' '^pacer: assist' '^scav '; do grep -q \"\$kind\" '$work/own.log' || exit 1; done"
  done
else
  skip 'own lines' 'the library is not built'
fi

# The lines that Go 1.19 does not print, or not here.
cat >"$work/newer.log" <<'END'
a line of the program
GC forced
gc 1 @0.013s 4%: 0.031+58+0.044 ms clock, 0.24+1.8/55/12+0.35 ms cpu, 61->66->34 MB, 68 MB goal, 1 MB stacks, 2 MB globals, 8 P
gc 2 @121.412s 0%: 0+0.001+0.99 ms clock, 0+9.9/10/0+7.9 ms cpu, 0->0->0 MB, 0 MB goal, 0 MB stacks, 0 MB globals, 8 P (forced)
scav 2048 KiB work (bg), 0 KiB work (eager), 18240 KiB now, 87% util
scav 0 KiB work (bg), 0 KiB work (eager), 18240 KiB now, 100% util (forced)
scav 0 KiB work (bg), 64 KiB work (eager), 18240 KiB now, 100% util [controller reset]
END
expect 'newer lines' scripts/gctrace.py --check "$work/newer.log"

printf 'v 2097152 1023 18677760 87 100 0 0\nv 0 65536 18677760 7 7 0 1\nv 0 0 18677760 7 7 1 1\n' |
  "$work/format" >"$work/scav"
cat >"$work/scav.want" <<'END'
scav 2048 KiB work (bg), 0 KiB work (eager), 18240 KiB now, 87% util
scav 0 KiB work (bg), 64 KiB work (eager), 18240 KiB now, 100% util [controller reset]
scav 0 KiB work (bg), 0 KiB work (eager), 18240 KiB now, 100% util (forced)
END
expect 'scavenger lines' diff "$work/scav.want" "$work/scav"

# gc CYCLE START SHARE CLOCK CPU HEAP: a line with one part changed.
gc_line() {
  echo "gc $1 @$2s $3%: $4 ms clock, $5 ms cpu, $6 MB, 68 MB goal, 1 MB stacks, 2 MB globals, 8 P"
}
clock='0.031+58+0.044' cpu='0.24+1.8/55/12+0.35' heap='61->66->34'
expect 'the unchanged line' scripts/gctrace.py <<<"$(gc_line 7 3.412 4 $clock $cpu $heap)"
refuse 'a number with zeros before it' "$(gc_line 07 3.412 4 $clock $cpu $heap)"
refuse 'seconds with two decimals' "$(gc_line 7 3.41 4 $clock $cpu $heap)"
refuse 'a fraction of a percent' "$(gc_line 7 3.412 4.0 $clock $cpu $heap)"
refuse 'a negative percentage' "$(gc_line 7 3.412 -1 $clock $cpu $heap)"
refuse 'three digits of a time' "$(gc_line 7 3.412 4 0.031+1.87+0.044 $cpu $heap)"
refuse 'decimals of a long time' "$(gc_line 7 3.412 4 0.031+58.1+0.044 $cpu $heap)"
refuse 'a time below a microsecond' "$(gc_line 7 3.412 4 0.0001+58+0.044 $cpu $heap)"
refuse 'a time that ends in zero decimals' "$(gc_line 7 3.412 4 0.000+58+0.044 $cpu $heap)"
refuse 'a missing stop' "$(gc_line 7 3.412 4 0.031+58 $cpu $heap)"
refuse 'other signs between times' "$(gc_line 7 3.412 4 $clock 0.24+1.8+55+12+0.35 $heap)"
refuse 'two heap sizes' "$(gc_line 7 3.412 4 $clock $cpu '61->34')"
refuse 'text behind the line' "$(gc_line 7 3.412 4 $clock $cpu $heap) "
refuse 'a float without its sign' \
  'pacer: assist ratio=1.402331e+000 (scan 12 MB in 24->40 MB) workers=2++0.000000e+000'
refuse 'a short exponent' \
  'pacer: assist ratio=+1.402331e+00 (scan 12 MB in 24->40 MB) workers=2++0.000000e+000'
refuse 'a letter instead of the sign of increment' 'pacer: 27% CPU (25 exp.) for 9+8+1 B work'\
' (9700000 B exp.) in 33554432 B -> 36175872 B (Dgoal -2097152, cons/mark +1.100000e-001)'
refuse 'megabytes given back' 'scav 2 MiB work (bg), 0 KiB work (eager), 18 KiB now, 87% util'

cycle() { gc_line "$1" "$2" 4 $clock $cpu $heap; }
unordered() {
  if scripts/gctrace.py --check "$work/order" >/dev/null 2>&1; then
    fail "$1" 'accepted'
  else
    ok "$1"
  fi
}
{ cycle 1 1.000; cycle 3 2.000; } >"$work/order"
unordered 'a cycle that is missing'
{ cycle 1 2.000; cycle 2 1.000; } >"$work/order"
unordered 'time that runs backwards'
gc_line 1 1.000 4 0.031+58+0.044 0.34+1.8/55/12+0.35 $heap >"$work/order"
unordered 'a stop that takes more than all CPUs'

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
