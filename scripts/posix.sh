#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the Open POSIX Test Suite over the library and compares each verdict with the native one:
# `make posix`. With default settings, unless UNDERGO says otherwise. What cannot be had here (the
# runner beside the checkout, the suite's source) is a skip that says why. Arguments go to the
# runner: POSIX_ARGS='--areas threads,sem --only cond'.
# Usage: scripts/posix.sh LIBRARY FOLDER-FOR-BUILDS [RUNNER ARGUMENTS]
set -u
[ $# -ge 2 ] || { echo 'usage: scripts/posix.sh LIBRARY FOLDER [RUNNER ARGUMENTS]' >&2; exit 2; }
library=$1 work=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
kit=${POSIX:-$root/../shared/posix}

skip() {
  echo "posix: skipped: $1"
  exit 0
}
[ -f "$kit/posix-run.py" ] && [ -f "$kit/native.json" ] ||
  skip "no runner at $kit; POSIX=DIR names its folder"
[ -f "$library" ] || { echo "undergo: posix: $library is not built" >&2; exit 2; }
command -v dpkg-source >/dev/null || skip "no dpkg-source to unpack the suite; make deps installs it"
mkdir -p "$work" || exit 2
if [ ! -d "$work/pts/conformance" ]; then
  echo "posix: getting the suite's source package"
  python3 "$kit/posix-run.py" --get "$work" >"$work/get.log" 2>&1 ||
    skip "the source package posixtestsuite cannot be had: $(tail -n 1 "$work/get.log")"
fi
# Some tests leave message queues behind, which count against the user's limit until the machine is
# switched off. Where a namespace of its own is permitted, they end with the run.
own_queues=
unshare --ipc true 2>/dev/null && own_queues='unshare --ipc'
# shellcheck disable=SC2086
exec $own_queues python3 "$kit/posix-run.py" --src "$work/pts" --work "$work/bin" --preload "$library" \
  --baseline "$kit/native.json" --out "$work/verdicts.json" --repeat 3 "$@"
