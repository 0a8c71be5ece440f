#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Without the scheduler: the programs of tests/preload that make threads, with UNDERGO=sched=off. The
# sched_* programs have such runs of their own. Short runs only; with PACE=quick a part of them.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
PACE=${PACE:-quick}

only=
for source in $(grep -lE 'pthread_create|std::thread|StartCollector|pthreads\.h' tests/preload/*.c*); do
  name=$(basename "${source%.*}")
  # Those with runs of their own, or for which threads are a side issue.
  case $PACE:$name in
    *:sched_* | *:sanitizer_* | *:inject_* | *:rlimit_*) ;;
    all:* | *:stop_* | *:threads_* | *:gc_life_*) only+=${only:+,}$name,$name.* ;;
  esac
done
exec tests/run.sh --quick --suite preload --so "$BUILD/libundergo.so" --only "$only" \
  --setting sched=off
