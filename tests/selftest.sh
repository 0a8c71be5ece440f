#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shows that the tests can fail: each fault of support/broken_malloc.c must fail the test named
# beside it, and the same tests must pass over the object without a fault.
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
export BUILD
object=$BUILD/tests/support/broken_malloc.so
[ -f "$object" ] || { echo "selftest: $object is not built; run make tests-programs" >&2; exit 2; }

faults='
overlap          model.single
misaligned       glibc_edges
misaligned       model.single
random_null      glibc_realloc
random_null      model.single
errno_lost       glibc_edges
free_sets_errno  glibc_edges
dirty_calloc     glibc_realloc
dirty_calloc     model.single
realloc_short    glibc_realloc
realloc_short    model.single
realloc_keeps    glibc_edges
usable_small     glibc_edges
no_free          threads_short
no_free          thread_exit_late
no_free          producer_consumer.worker_allocates
remote_free_lost producer_consumer.main_allocates
dies_when_full   rlimit_as.as_60
random_null      inject_enomem.large_only
free_sets_errno  inject_enomem.madvise
dirty_calloc     inject_enomem.all
dies_at_exit     exits
opens_file       quiet
plain_lock       fork_hammer.loop
plain_lock       signal_malloc.alarm
'
passed=0 failed=0
for test in $(awk 'NF {print $2}' <<<"$faults" | sort -u); do
  case $test in signal_malloc*) continue ;; esac  # the C library's malloc does not pass it
  if tests/run.sh --so "$object" --only "$test" >/dev/null; then
    passed=$((passed + 1))
  else
    echo "FAIL $test fails without a fault"
    failed=$((failed + 1))
  fi
done
while read -r fault test; do
  [ -n "$fault" ] || continue
  if UNDERGO_BROKEN=$fault tests/run.sh --so "$object" --only "$test" >/dev/null; then
    echo "FAIL $test does not notice the fault $fault"
    failed=$((failed + 1))
  else
    echo "ok   $test notices $fault"
    passed=$((passed + 1))
  fi
done <<<"$faults"
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
