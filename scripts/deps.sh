#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what building, testing and benchmarking need and this machine lacks (Debian packages).
# Without root it says what is missing; only missing build tools make it fail.
set -u

build='gcc g++ make binutils libc6-dev'
rest='clang-14 libcriterion-dev python3 gdb strace time procps util-linux libcap2-bin
  libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 gnuplot-nox linux-perf golang-go
  libxml2-dev libgc-dev
  redis-server redis-tools git sqlite3 man-db ca-certificates
  dpkg-dev stress-ng memcached mariadb-server mariadb-client'

missing() {
  for package in "$@"; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      printf '%s ' "$package"
  done
}

command -v dpkg-query >/dev/null || {
  echo "undergo: deps: not a Debian system; needed are: $(echo $build $rest)" >&2
  exit 0
}
# shellcheck disable=SC2086
wanted=$(missing $build $rest)
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "undergo: deps: missing packages, and no root to install them; run as root:" >&2
  echo "  apt-get install --no-install-recommends $wanted" >&2
  # shellcheck disable=SC2086
  [ -z "$(missing $build)" ]
  exit
fi
echo "deps: apt-get install $wanted"
# A package that is installed here must not start a server of its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $wanted >/dev/null 2>&1 || {
  apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $wanted >/dev/null
} || {
  echo "undergo: deps: apt-get failed; install by hand: $wanted" >&2
  # shellcheck disable=SC2086
  [ -z "$(missing $build)" ]
  exit
}
