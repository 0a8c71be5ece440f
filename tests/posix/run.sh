#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The short half of the Open POSIX Test Suite with default settings: what passes natively within a
# second, less most of the tests that do the same for each signal. Long pace only, below two
# minutes. `make posix` is the whole suite. Where the runner does not lie beside the checkout, or the
# suite's source cannot be had, this is a skip. So is a test that turns out to fail here without the
# library as well: each that differs is run ten times more that way.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
kit=${POSIX:-../shared/posix}
passed=0 failed=0 skipped=0
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed -eq 0 ]
  exit
}
[ "${PACE:-all}" = quick ] && finish
unset LD_PRELOAD UNDERGO GOGC GOMEMLIMIT GOMAXPROCS GODEBUG

log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT
short=$([ ! -f "$kit/native.json" ] || python3 - "$kit/native.json" <<'EOF'
import json, re, sys
verdicts = json.load(open(sys.argv[1]))["verdicts"]
per_signal = re.compile(r"^interfaces/(sigaction|sigaddset|sigdelset|sigismember|sighold|sigignore"
                        r"|sigrelse|sigset|signal)/(?!1-1$|4-1$)|^definitions/|^interfaces/aio_"
                        r"|sigaltstack/9-1$"  # this one runs a program that is not a test
                        # and this one sets the clock of the machine a week ahead, beside others
                        r"|interfaces/pthread_cond_init/2-2$")
names = [n for n, r in verdicts.items()
         if r["v"] == "PASS" and r["s"] <= 1.1 and not per_signal.search(n) and n[-3:] != ".sh"]
print("^(" + "|".join(re.escape(n) for n in names) + r")\.c$")
EOF
)
POSIX=$kit scripts/posix.sh "$BUILD/libundergo.so" "$BUILD/posix" --only "$short" \
  -j 4 --timeout 20 >"$log" 2>&1 </dev/null
status=$?
if grep -q '^posix: skipped: ' "$log"; then
  sed -n 's/^posix: skipped: /skip posix: /p' "$log"
  skipped=1
  finish
fi
total=$(sed -n 's/^TOTAL .*[ =]PASS=\([0-9]*\).*/\1/p' "$log")
differs=$(sed -n 's/^# differs from baseline: .*(\([0-9]*\) that pass natively)/\1/p' "$log")
if [ -z "$total" ] || [ -z "$differs" ]; then
  echo "FAIL posix: no summary, exit status $status"
  tail -n 8 "$log" | sed 's/^/     | /'
  failed=1
  finish
fi

# The native failures among ten runs of one test.
native_failures() {
  local failures=0
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    (cd "$BUILD/posix/bin" && timeout -s KILL 20 setsid -w "conformance/$1.test") \
      >/dev/null 2>&1 </dev/null || failures=$((failures + 1))
  done
  echo $failures
}

passed=$total
while read -r name verdict; do
  natively=$(native_failures "$name")
  if [ "$natively" -eq 0 ]; then
    failed=$((failed + 1))
    echo "FAIL posix $name $verdict"
  else
    skipped=$((skipped + 1))
    echo "skip posix $name: $verdict; without the library it fails in $natively of 10 runs"
  fi
done < <(grep ' PASS -> ' "$log")
echo "posix: $passed passed, $failed failed, $skipped skipped"
[ $((failed + skipped)) -eq "$differs" ] || {
  echo "FAIL posix: $differs tests differ, but $((failed + skipped)) are listed"
  failed=$((failed + 1))
}
finish
