#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shows that the tests can fail: each fault of support/broken_malloc.c and broken_threads.c must fail
# the test named beside it, and the same tests must pass over the object without a fault.
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
export BUILD

malloc_faults='
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

thread_faults='
join_result       sched_create
tryjoin_waits     sched_create
detach_blind      sched_create
no_flush          sched_exit.thread_exits
mutex_open        sched_mutex
no_owner          sched_mutex
mutex_early       sched_mutex
inconsistent      sched_mutex_kernel
lost_signal       sched_cond
cond_early        sched_cond
cond_unlocked     sched_cond
writers_read      sched_locks
barrier_open      sched_locks
spin_open         sched_locks
once_again        sched_locks
sem_twice         sched_sem
sem_early         sched_sem
no_destructors    sched_tls
errno_lost        sched_tls
always_cancel     sched_cancel
short_sleep       sched_sleep
modes_lost        sched_spin
nonblocking       sched_io
short_write       sched_io
no_waitall        sched_net
nonblocking_accept sched_net
mask_ignored      sched_poll
close_late        sched_close
spurious_eintr    sched_eintr
always_restart    sched_eintr
process_mask      sched_signal
kill_process      sched_signal
no_altstack       sched_altstack
timer_any         sched_timers
fork_mask         sched_fork
exec_mask         sched_children
one_tid           sched_identity
wrong_stack       sched_identity
wrong_stack       sched_stacks
no_names          sched_identity
no_affinity       sched_identity
futex_count       sched_futex
futex_bits        sched_futex
'
passed=0 failed=0
notices() { # OBJECT FAULTS
  local object=$BUILD/tests/support/$1.so faults=$2 test fault
  [ -f "$object" ] || { echo "selftest: $object is not built; run make tests-programs" >&2; exit 2; }
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
}
case ${1:-all} in
  all) notices broken_malloc "$malloc_faults"; notices broken_threads "$thread_faults" ;;
  malloc) notices broken_malloc "$malloc_faults" ;;
  threads) notices broken_threads "$thread_faults" ;;
  *) echo 'usage: tests/selftest.sh [malloc|threads]' >&2; exit 2 ;;
esac
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
