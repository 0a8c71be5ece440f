#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The hot paths of malloc and free against the recorded instruction counts. A change that adds an
# instruction shows here; `make fastpath-update` records it in the commit that wants it.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}

finish() { # ok|FAIL|skip [REASON]
  echo "$1 golden fastpath${2:+: $2}"
  case $1 in
    ok) echo '1 passed, 0 failed, 0 skipped' ;;
    FAIL) echo '0 passed, 1 failed, 0 skipped'; exit 1 ;;
    skip) echo '0 passed, 0 failed, 1 skipped' ;;
  esac
  exit 0
}

# Another compiler lays the same code out in other instructions.
compiler=$(readelf -p .comment "$BUILD/libundergo.so" 2>/dev/null | sed -n 's/.*\(GCC: .*\)/\1/p' | head -n 1)
grep -qF "compiler: $compiler" tests/golden/fastpath.golden || finish skip "built by ${compiler:-another compiler}"
make -s "$BUILD/bench/steptrace" BUILD="$BUILD" >/dev/null || finish FAIL 'cannot build the stepper'
if out=$(scripts/fastpath_golden.py --build "$BUILD" --check "$BUILD/libundergo.so" 2>&1); then
  finish ok
fi
case $out in *[Pp]ermitted*) finish skip 'this machine does not permit ptrace' ;; esac
printf '%s\n' "$out"
finish FAIL 'the counts differ'
