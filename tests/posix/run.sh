#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The short half of the Open POSIX Test Suite with default settings: what passes natively within a
# second, less most of the tests that do the same for each signal. Long pace only, below two
# minutes. `make posix` is the whole suite. Where the runner does not lie beside the checkout, or the
# suite's source cannot be had, this is a skip.
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
                        r"|sigaltstack/9-1$")  # this one runs a program that is not a test
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
passed=$total failed=$differs
echo "posix: $passed passed, $failed failed"
sed -n 's/^\(.* PASS -> .*\)/FAIL posix \1/p' "$log"
finish
