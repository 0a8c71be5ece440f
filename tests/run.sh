#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the test suites and prints `N passed, N failed, N skipped` as its last line.
#
#   tests/run.sh [--quick|--all] [--native] [--so PATH]... [--suite LIST] [--only GLOB,...] [--list]
#                [--setting KEY=VALUE]
#
# Suites: unit, preload (with the model test), parts (every tests/*/run.sh) and compat. Each build
# that is there is run: build/ and build/debug/. With --so only the preload suite runs, over those
# objects; --native runs it over the C library's malloc. BUILD=DIR names another build folder.
# --setting adds one to the UNDERGO= of each program.
# Over the C library's malloc, which only shows that the tests are right, no run is repeated for the
# sake of settings, and none is long.
#
# A program of tests/preload or tests/model says in its head comment how it is to be run:
#   // run: [name=N] [env=K=V]... [preload=PLUGIN] [exit=N] [native=no] [pace=long] [ARG]...
#           [stderr=REGEX]       (all on one line)
#       one line for each run; stderr= takes the rest of the line, and means that exactly one line
#       of stderr starts with `undergo: ` and matches; without it there must be none.
#   // native: no        it makes no sense over the C library's malloc
#   // needs: root|overcommit   // timeout: SECONDS   // pace: long (left out of --quick)
# NAME.out beside it, or NAME.RUN.out for one run, is the output wanted. Exit status 77 is a skip.
set -u
cd "$(dirname "$0")/.." || exit 2

usage() {
  echo "usage: tests/run.sh [--quick|--all] [--native] [--so PATH]... [--suite LIST]" \
    "[--only GLOB,...] [--list] [--setting KEY=VALUE]" >&2
  exit 2
}

BUILD=${BUILD:-build}
pace=quick only='*' native=no list=no suites='' objects=() setting=''
while [ $# -gt 0 ]; do
  case $1 in
    --quick) pace=quick ;;
    --all) pace=all ;;
    --native) native=yes ;;
    --so) [ $# -gt 1 ] || usage; objects+=("$(realpath -m "$2")"); shift ;;
    --only) [ $# -gt 1 ] || usage; only=$2; shift ;;
    --suite) [ $# -gt 1 ] || usage; suites=${2//,/ }; shift ;;
    --list) list=yes ;;
    --setting) [ $# -gt 1 ] || usage; setting=$2; shift ;;
    *) usage ;;
  esac
  shift
done
if [ -z "$suites" ]; then
  suites='unit preload parts compat'
  [ "$pace" = quick ] && suites='unit preload parts'
  [ ${#objects[@]} -gt 0 ] || [ $native = yes ] && suites=preload
fi
for s in $suites; do
  case $s in unit | preload | parts | compat) ;; *) usage ;; esac
done

# A setting of the caller must not reach the programs under test.
unset LD_PRELOAD UNDERGO GOGC GOMEMLIMIT GOMAXPROCS GODEBUG MALLOC_ARENA_MAX MALLOC_TOP_PAD_
export LC_ALL=C
ulimit -c 0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/undergo-tests.XXXXXX") || exit 2
trap 'rm -rf "$scratch"' EXIT

# Whether --only means this name: it matches one of the globs.
chosen() { # NAME
  local glob globs
  IFS=, read -ra globs <<<"$only"
  for glob in "${globs[@]}"; do
    # shellcheck disable=SC2254
    case $1 in $glob) return 0 ;; esac
  done
  return 1
}

passed=0 failed=0 skipped=0
failures=()
verdict() { # ok|FAIL|skip LABEL [REASON]
  case $1 in
    ok) passed=$((passed + 1)) ;;
    skip) skipped=$((skipped + 1)) ;;
    FAIL) failed=$((failed + 1)); failures+=("$2${3:+: $3}") ;;
  esac
  printf '%-4s %s%s\n' "$1" "$2" "${3:+: $3}"
}

# Adds a summary `N passed, N failed, N skipped`, the last line of the file, to the totals.
add_summary() { # LABEL FILE STATUS
  local p f s
  local summary='s/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p'
  if read -r p f s < <(tail -n 1 "$2" | sed -n "$summary") && [ -n "$s" ]; then
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -gt 0 ] && failures+=("$1: $f failed" "$(grep -a -A 4 '^FAIL' "$2" | head -n 20)")
    [ "$f" -eq 0 ] && [ "$3" -ne 0 ] && verdict FAIL "$1" "exit status $3 without a failure counted"
  else
    verdict FAIL "$1" "no summary, exit status $3"
  fi
}

run_unit() { # BUILD
  local bin log p f line status
  # Seeds of tests/sim.
  [ "$pace" = quick ] || export SIM_SEEDS="${SIM_SEEDS:-10000}"
  for bin in "$1"/tests/unit/*; do
    if [ ! -f "$bin" ] || [ ! -x "$bin" ]; then continue; fi
    chosen "${bin##*/}" || continue
    log=$scratch/unit.log
    timeout -k 5 300 "$bin" --color=never --encoding=ascii --jobs 2 --timeout 120 \
      >"$log" 2>&1 </dev/null
    status=$?
    line=$(grep -a 'Synthesis:' "$log" | tail -n 1)
    p=$(sed -n 's/.*Passing: *\([0-9]*\).*/\1/p' <<<"$line")
    f=$(sed -n 's/.*Failing: *\([0-9]*\).*/\1/p' <<<"$line")
    if [ -z "$p" ] || [ -z "$f" ]; then
      verdict FAIL "unit $bin" "no synthesis line, exit status $status"
      tail -n 20 "$log"
      continue
    fi
    echo "unit $bin: $p passed, $f failed"
    passed=$((passed + p)) failed=$((failed + f))
    if [ "$f" -gt 0 ]; then
      failures+=("unit $bin: $f failed:" \
        "$(grep -aE '^\[(FAIL|----)\]' "$log" | head -n 10 | cut -c 1-150)")
      grep -a -v '^\[PASS\]' "$log" | head -n 60
    elif [ "$status" -ne 0 ]; then
      verdict FAIL "unit $bin" "exit status $status"
    fi
  done
}

# What the head comment of a source says under a keyword.
directive() { sed -n "1,60s,^// $2: *,,p" "$1"; }

# One run of one program; the words of its run line are the arguments.
run_one() { # SOURCE PROGRAM SO KIND RUNLINE
  local src=$1 program=$2 so=$3 kind=$4 line=$5
  local name='' want=0 pattern='' extra='' undergo=$setting words=() vars=() args=() word
  case $line in *stderr=*) pattern=${line#*stderr=} line=${line%%stderr=*} ;; esac
  read -ra words <<<"$line"
  for word in "${words[@]+"${words[@]}"}"; do
    case $word in
      name=*) name=${word#*=} ;;
      env=UNDERGO=* | env=GO*) [ "$kind" = native ] && continue ;;&
      env=UNDERGO=*) undergo=${word#*=*=}${setting:+,$setting} ;;
      env=*) vars+=("${word#*=}") ;;
      exit=*) want=${word#*=} ;;
      preload=*) extra=$(realpath -m "${program%/*}/plugins/${word#*=}.so") ;;
      native=no) [ "$kind" = native ] && return ;;
      pace=long) [ "$pace" = quick ] && return; [ "$kind" = native ] && return ;;
      *) args+=("$word") ;;
    esac
  done
  [ -n "$undergo" ] && vars+=("UNDERGO=$undergo")
  local base=${program##*/}
  chosen "$base${name:+.$name}" || return
  if [ "$kind" = native ]; then
    local same="$base ${vars[*]-} $extra ${args[*]-}"
    case " ${native_runs-} " in *"|$same|"*) return ;; esac
    native_runs="${native_runs-}|$same|"
  fi
  local label="$kind $base${name:+.$name}"
  if [ $list = yes ]; then echo "$label ${args[*]-}"; return; fi

  local need
  for need in $(directive "$src" needs); do
    case $need in
      root) [ "$(id -u)" = 0 ] || { verdict skip "$label" "needs root"; return; } ;;
      overcommit) [ "${UNDERGO_TEST_OVERCOMMIT-}" = 1 ] || {
        verdict skip "$label" \
          "changes vm.overcommit_memory; set UNDERGO_TEST_OVERCOMMIT=1 to allow it"
        return
      } ;;
    esac
  done

  local preload=$so limit status start end
  [ -n "$extra" ] && preload=$extra${so:+:$so}
  limit=$(directive "$src" timeout)
  local out=$scratch/out err=$scratch/err
  start=$(date +%s%N)
  # The inner shell keeps the word about a signal off the log, and this one's descriptors to itself.
  sh -c 'out=$1 err=$2; shift 2; "$@" </dev/null >"$out" 2>"$err"; exit $?' sh "$out" "$err" \
    timeout -k 3 "${limit:-20}" env ${preload:+LD_PRELOAD="$preload"} ${vars[@]+"${vars[@]}"} \
    "$program" ${args[@]+"${args[@]}"} 2>/dev/null
  status=$?
  end=$(date +%s%N)

  local why='' ours wanted
  ours=$(grep -a -c '^undergo: ' "$err")
  wanted=${src%.*}.${name:+$name.}out
  [ -f "$wanted" ] || wanted=${src%.*}.out
  if [ $status = 77 ] && [ "$want" != 77 ]; then
    verdict skip "$label" "$(tail -n 1 "$out")"
    return
  elif [ $status = 124 ]; then why="no end after ${limit:-20} s"
  elif [ $status != "$want" ]; then why="exit status $status, wanted $want"
  elif [ -n "$so" ] && [ -z "$pattern" ] && [ "$ours" != 0 ]; then why="the library spoke unasked"
  elif [ -n "$so" ] && [ -n "$pattern" ] && [ "$ours" != 1 ]; then
    why="$ours lines start with 'undergo: ', wanted 1"
  elif [ -n "$so" ] && [ -n "$pattern" ] &&
    ! grep -a '^undergo: ' "$err" | grep -a -q -E -- "$pattern"; then
    why="stderr does not match $pattern"
  elif [ -f "$wanted" ] && ! diff -u "$wanted" "$out" >"$scratch/diff"; then why="output differs"
  fi
  if [ -z "$why" ]; then
    verdict ok "$label" "$(((end - start) / 1000000)) ms"
  else
    verdict FAIL "$label" "$why"
    [ "$why" = "output differs" ] && sed 's/^/     | /' "$scratch/diff" | head -n 20
    sed 's/^/     | /' "$err" | tail -n 12 >"$scratch/said"
    cat "$scratch/said"
    failures+=("$(cat "$scratch/said")")
  fi
}

run_preload() { # SO KIND
  local src program line lines
  for src in tests/preload/*.c tests/preload/*.cc tests/model/*.cc; do
    [ -f "$src" ] || continue
    program=${src#tests/}
    program=$BUILD/tests/${program%.*}
    [ "$2" = native ] && [ "$(directive "$src" native)" = no ] && continue
    [ "$pace" = quick ] && [ "$(directive "$src" pace)" = long ] && continue
    if [ ! -x "$program" ]; then verdict FAIL "$2 $program" "not built"; continue; fi
    mapfile -t lines < <(directive "$src" run)
    [ ${#lines[@]} -gt 0 ] || lines=('')
    for line in "${lines[@]}"; do run_one "$src" "$program" "$1" "$2" "$line"; done
  done
}

run_parts() {
  local part log status
  for part in tests/*/run.sh; do
    [ -x "$part" ] || continue
    chosen "$(basename "$(dirname "$part")")" || continue
    log=$scratch/part.log
    BUILD=$BUILD PACE=$pace timeout -k 5 900 "$part" </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    add_summary "$part" "$log" "$status"
  done
}

# The cases of the compatibility corpus that take few seconds and cover each kind of program.
compat_quick=boost-fiber-asio,coreutils-bash,curl-parallel,cxx-threads,dlopen-unwind,gdb-batch
compat_quick+=,git-repo
compat_quick+=,gnuplot-graphviz,hidden-pointers,leak-libxml2,leak-openssl,lua-tcl-guile,make-j2
compat_quick+=,memcached-load,mosquitto-pubsub,nginx-static,node-workers,openmp-omp,perl-workers
compat_quick+=,php-modules,php-script,pigz-pbzip2-lbzip2,posix-threads,python-workers,qt-offscreen
compat_quick+=,rsync-tree,sort-parallel,sysbench-threads,xz-threads,zstd-threads
compat_modes=cxx-threads,git-repo,memcached-load,node-workers,posix-threads,python-workers

run_compat() {
  local run=../shared/compat/run so=$BUILD/libundergo.so log=$scratch/compat.log status
  if [ ! -x $run ]; then
    verdict skip compat "no ../shared/compat beside the checkout"
    return
  fi
  if [ ! -f "$so" ]; then verdict FAIL compat "$so is not built"; return; fi
  # What it cannot install, without root or without a network, the corpus counts as skipped.
  local install=()
  [ "$(id -u)" = 0 ] && install=(--install)
  "$run" --so "$so" "${install[@]}" --only "$compat_quick" </dev/null 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  add_summary compat "$log" "$status"
  # The other modes: the collector over kernel threads, and the allocator alone.
  local settings
  for settings in sched=off gc=off,sched=off; do
    echo "-- $settings"
    "$run" --so "$so" --env "UNDERGO=$settings" --only "$compat_modes" </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    add_summary "compat $settings" "$log" "$status"
  done
}

for s in $suites; do
  case $s in
    unit)
      run_unit "$BUILD"
      [ -d "$BUILD/debug/tests/unit" ] && run_unit "$BUILD/debug"
      ;;
    preload)
      if [ $native = yes ] || { [ $pace = all ] && [ ${#objects[@]} = 0 ]; }; then
        run_preload '' native
      fi
      if [ ${#objects[@]} -gt 0 ]; then
        for so in "${objects[@]}"; do
          if [ ! -f "$so" ]; then verdict FAIL "$so" "no such object"; continue; fi
          run_preload "$so" "$(basename "$so" .so)"
        done
      elif [ $native = no ]; then
        so=$BUILD/libundergo.so
        if [ -f "$so" ]; then run_preload "$(realpath "$so")" release
        else verdict FAIL preload "$so is not built"; fi
        so=$BUILD/debug/libundergo.so
        if [ -f "$so" ]; then run_preload "$(realpath "$so")" debug
        else verdict skip "preload debug" "$so is not built"; fi
      fi
      ;;
    parts) run_parts ;;
    compat) run_compat ;;
  esac
done

[ $list = yes ] && exit 0
if [ ${#failures[@]} -gt 0 ]; then
  printf '\nfailed:\n'
  printf '  %s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
