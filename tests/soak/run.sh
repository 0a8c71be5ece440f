#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Real programs under a collector that runs all the time and checks itself: after each mark the world
# is stopped and roots and stacks are read again (GODEBUG=gccheckmark=1), and whoever takes new slots
# waits for a collection (UNDERGO=stress=gc), or collections come at a twentieth of growth. In all
# three ways of noticing writes. Output is compared with that of a native run, and the library must
# not say a word. Long pace only.
# Usage: [BUILD=DIR] [PACE=all] [MODES='uffd snapshot stop'] tests/soak/run.sh [PROGRAM]...
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${BUILD:-build}
library=$(realpath "$BUILD/libundergo.so")
unset LD_PRELOAD UNDERGO GOGC GOMEMLIMIT GOMAXPROCS GODEBUG
export LC_ALL=C HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 PYTHONDONTWRITEBYTECODE=1

passed=0 failed=0 skipped=0
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed -eq 0 ]
  exit
}
[ "${PACE:-all}" = quick ] && finish
[ -f "$library" ] || { echo "FAIL soak: $library is not built"; failed=1; finish; }
work=$(mktemp -d "${TMPDIR:-/tmp}/undergo-soak.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT

# Each program works in a fresh folder and prints what is compared. `under` are the settings.
python() {
  "${under[@]}" PYTHONMALLOC=malloc /usr/bin/python3 -c '
import json, re, threading
out = []
def work(seed):
    data = [{"k%d" % i: [str(i * seed)] * 3} for i in range(60)]
    for _ in range(4):
        data = json.loads(json.dumps(data))
    out.append((seed, len(re.findall(r"\d+", repr(data)))))
threads = [threading.Thread(target=work, args=(s,)) for s in range(1, 4)]
for t in threads: t.start()
for t in threads: t.join()
print(sorted(out))'
}
sqlite() {
  "${under[@]}" sqlite3 :memory: "create table t(a integer primary key, b text);
    with recursive c(i) as (select 1 union all select i + 1 from c where i < 800)
      insert into t select i, printf('%08d', (i * 7919) % 1000) from c;
    create index x on t(b);
    select count(*), sum(length(b)) from t; select b, count(*) from t group by b order by 2, 1 limit 5;
    select max(a) from t where b like '%77%';"
}
git_repo() {
  "${under[@]}" git init -q -b main . && "${under[@]}" git config user.email a@b &&
    "${under[@]}" git config user.name a && "${under[@]}" git config gc.auto 0
  for i in 1 2 3; do
    seq $((i * 100)) >"file$i"
    "${under[@]}" git add . && GIT_AUTHOR_DATE="@$i +0000" GIT_COMMITTER_DATE="@$i +0000" \
      "${under[@]}" git commit -qm "commit $i"
  done
  "${under[@]}" git log --format='%H %s' --stat
  "${under[@]}" git fsck --full 2>&1
}
compiler() { # clang where it is: gcc's compiler proper has a malloc of its own
  printf '#include <map>\n#include <string>\nint f(int i) { std::map<std::string, int> m;
    m[std::to_string(i)] = i; return m.begin()->second; }\n' >a.cc
  "${under[@]}" "$(command -v clang++-14 clang++ g++ | head -n 1)" -O1 -S a.cc -o - | cksum
}
redis() {
  local port=$((20000 + RANDOM % 20000)) i
  "${under[@]}" redis-server --port $port --bind 127.0.0.1 --save '' --appendonly no >server.log 2>&1 &
  local server=$!
  for i in $(seq 400); do redis-cli -p $port ping >/dev/null 2>&1 && break; sleep 0.05; done
  for i in $(seq 400); do
    echo "set key$i value$((i * 3))"; echo "lpush list v$i"; echo "hset hash f$i $i"
    [ $((i % 3)) = 0 ] && echo "del key$i"
  done | redis-cli -p $port >/dev/null
  { echo llen list; echo hlen hash; echo dbsize; echo get key4; echo lrange list 0 3; echo debug digest; } |
    redis-cli -p $port
  redis-cli -p $port shutdown nosave >/dev/null 2>&1
  wait $server
  grep '^undergo: ' server.log
}
recall() { # The tests' own programs, which check themselves.
  for p in 'gc_recall list' 'gc_recall hash' 'gc_recall regcomp' gc_recall_cxx gc_recall_xml; do
    [ "${p%% *}" = gc_recall_xml ] && [ ! -x "$tests/gc_recall_xml" ] && continue
    # shellcheck disable=SC2086  # a program and its argument
    "${under[@]}" "$tests"/$p 2>&1 | grep -v 'dropped objects found'
  done
}
tests=$(realpath -m "$BUILD/tests/preload")

needs() {
  case $1 in
    python) command -v /usr/bin/python3 ;; sqlite) command -v sqlite3 ;; git_repo) command -v git ;;
    compiler) command -v clang++-14 clang++ g++ ;; redis) command -v redis-server && command -v redis-cli ;;
    recall) [ -x "$tests/gc_recall" ] ;;
  esac >/dev/null
}
run() { # PROGRAM; `under` is set
  rm -rf "$work/in" && mkdir "$work/in"
  (cd "$work/in" && "$1") >"$work/out" 2>"$work/err"
}
# To wait for a collection at each refill takes too long for those that make a million objects.
# One of the ways over kernel threads.
settings() { # PROGRAM MODE
  local keys=tracking=$2
  [ "$2" = stop ] && keys+=,sched=off
  case $1 in
    recall) echo "GOGC=off UNDERGO=$keys" ;; # it collects by itself
    compiler) echo "GOGC=5 UNDERGO=$keys" ;;
    *) echo "UNDERGO=stress=gc,$keys" ;;
  esac
}

programs='python sqlite git_repo compiler redis recall'
[ $# -gt 0 ] && programs=$*
for program in $programs; do
  if ! needs "$program"; then
    echo "skip soak $program: not installed or not built"
    skipped=$((skipped + 1))
    continue
  fi
  under=(env)
  run "$program"
  cp "$work/out" "$work/native"
  for mode in ${MODES:-uffd snapshot stop}; do
    # shellcheck disable=SC2046  # words without spaces
    under=(env $(settings "$program" "$mode") GODEBUG=gccheckmark=1 LD_PRELOAD="$library")
    begin=$(date +%s)
    run "$program"
    label="soak $program.$mode"
    if ! cmp -s "$work/out" "$work/native" || grep -q '^undergo: ' "$work/err"; then
      echo "FAIL $label"
      diff "$work/native" "$work/out" | head -n 5 | sed 's/^/     | /'
      head -n 5 "$work/err" | sed 's/^/     | /'
      failed=$((failed + 1))
    else
      echo "ok   $label: $(($(date +%s) - begin)) s"
      passed=$((passed + 1))
    fi
  done
done
finish
