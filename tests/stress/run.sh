#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# stress-ng under the library: its stressors of threads, locks, signals, timers, waits and
# processes, each for a short time and with its own verification. Long pace only. A stressor that
# fails natively, too, is a skip.
# Usage: [BUILD=DIR] [PACE=all] [SECONDS_EACH=N] tests/stress/run.sh [STRESSOR]...
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
seconds=${SECONDS_EACH:-2}
library=$(realpath "$BUILD/libundergo.so")
unset LD_PRELOAD UNDERGO GOGC GOMEMLIMIT GOMAXPROCS GODEBUG

passed=0 failed=0 skipped=0
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed -eq 0 ]
  exit
}
[ "${PACE:-all}" = quick ] && finish
if ! command -v stress-ng >/dev/null; then
  echo 'skip stress: stress-ng is not installed; make deps installs it'
  skipped=1
  finish
fi
[ -f "$library" ] || { echo "FAIL stress: $library is not built"; failed=1; finish; }

stressors='pthread mutex futex sem sem-sysv switch yield nanosleep sleep cyclic timer timerfd hrtimers
  itimer poll epoll eventfd mq msg pipe fifo sock sockpair udp tee splice sigq signest sigsuspend sigfd
  sigpending sigrt sigsegv sigtrap sigabrt sigio kill affinity resched nice schedpolicy membarrier
  rseq dekker peterson key aio locka lockf lockofd flock context stack stackmmap fork vfork clone
  daemon exec spawn wait zombie pidfd prctl set io-uring'
[ $# -gt 0 ] && stressors=$*

work=$(mktemp -d "${TMPDIR:-/tmp}/undergo-stress.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
run() { # STRESSOR [VARIABLE]...
  local stressor=$1
  shift
  # Its own session: what a stressor leaves behind after a time-out goes with it.
  timeout -k 5 $((seconds * 10 + 30)) env "$@" stress-ng --"$stressor" 2 --timeout "$seconds" \
    --verify --oomable --temp-path "$work" >"$work/log" 2>&1 </dev/null
}
for stressor in $stressors; do
  for mode in on off; do
    # Without the scheduler a few suffice.
    case $mode:$stressor in off:pthread | off:mutex | off:sigsuspend | off:clone | on:*) ;; *) continue ;; esac
    label="stress $stressor.$mode"
    run "$stressor" LD_PRELOAD="$library" UNDERGO=sched=$mode
    status=$?
    cp "$work/log" "$work/first"
    case $status in
      0) if grep -q '^undergo: ' "$work/log" && [ "$stressor" != io-uring ]; then
           echo "FAIL $label: the library spoke unasked"
           failed=$((failed + 1))
           grep '^undergo: ' "$work/log" | sed 's/^/     | /' | head -n 5
         else
           echo "ok   $label"
           passed=$((passed + 1))
         fi
         continue ;;
      3) echo "skip $label: not possible here"
         skipped=$((skipped + 1))
         continue ;;
    esac
    if run "$stressor"; then
      echo "FAIL $label: exit status $status"
      tail -n 8 "$work/first" | sed 's/^/     | /'
      failed=$((failed + 1))
    else
      echo "skip $label: fails natively, too"
      skipped=$((skipped + 1))
    fi
  done
done
finish
