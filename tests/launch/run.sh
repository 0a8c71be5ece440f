#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests of the launcher: what it refuses and how, what it hands to the program, the settings.
# Usage: [UNDERGO_BUILD=DIR] [CC=COMPILER] run.sh; DIR holds undergo and, if built, libundergo.so
set -u

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(cd "${UNDERGO_BUILD:-$root/build}" && pwd) || exit 2
cc=${CC:-gcc}
unset LD_PRELOAD UNDERGO GODEBUG GOGC GOMEMLIMIT GOMAXPROCS

work=$(mktemp -d "${TMPDIR:-/tmp}/undergo-launch-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work" || exit 2

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok $1"; }
fail() { failed=$((failed + 1)); echo "FAIL $1: $2"; }
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }

# expect NAME STATUS PATTERN COMMAND...: runs it; its status and its output (both streams) must fit.
expect() {
  local name=$1 want=$2 pattern=$3 status
  shift 3
  timeout 30 "$@" >out 2>err </dev/null
  status=$?
  if [ "$status" != "$want" ]; then
    fail "$name" "status $status instead of $want: $(head -c 300 out err)"
  elif [ -n "$pattern" ] && ! cat out err | grep -qE -e "$pattern"; then
    fail "$name" "no '$pattern' in: $(cat out err | head -c 400)"
  else
    ok "$name"
  fi
}

# refuse NAME STATUS PATTERN COMMAND...: also, all that is printed is one line of ours on stderr.
refuse() {
  local name=$1 want=$2 pattern=$3 status
  shift 3
  timeout 30 "$@" >out 2>err </dev/null
  status=$?
  if [ "$status" != "$want" ]; then
    fail "$name" "status $status instead of $want: $(head -c 300 out err)"
  elif [ -s out ] || [ "$(wc -l <err)" != 1 ] || ! grep -q '^undergo: ' err; then
    fail "$name" "not one line of ours: $(cat out err | head -c 400)"
  elif ! grep -qE -e "$pattern" err; then
    fail "$name" "no '$pattern' in: $(head -c 400 err)"
  else
    ok "$name"
  fi
}

# An installation of the launcher with an empty library: these tests judge the launcher only.
mkdir -p inst/bin inst/lib/undergo
cp "$build/undergo" inst/bin/undergo
echo 'int undergo_launch_test;' >empty.c
$cc -shared -fPIC -o inst/lib/undergo/libundergo.so empty.c || exit 2
$cc -shared -fPIC -o other.so empty.c || exit 2
$cc -O1 -o show "$here/show.c" || exit 2
chmod 755 inst inst/* inst/lib/undergo
undergo=$work/inst/bin/undergo
library=$work/inst/lib/undergo/libundergo.so

as_nobody=(env)
[ "$(id -u)" != 0 ] || as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)

### The launcher itself
expect help 0 '^Usage: undergo' "$undergo" --help
"$undergo" --help >help.txt
if [ "$(wc -l <help.txt)" -le 24 ] && [ "$(wc -L <help.txt)" -le 80 ]; then
  ok help-fits-a-screen
else
  fail help-fits-a-screen "$(wc -l <help.txt) lines, $(wc -L <help.txt) columns"
fi
expect version 0 '^undergo [0-9]+\.[0-9]+' "$undergo" --version
refuse no-program 2 'no program' "$undergo"
refuse no-program-after-dashes 2 'no program' "$undergo" --gc=off --
refuse unknown-option 2 '"--nonsense"' "$undergo" --nonsense ./show
refuse unknown-short-option 2 '"-x"' "$undergo" -x ./show
refuse option-without-value 2 '"--gogc" needs a value' "$undergo" --gogc
expect doctor 0 '^PAGEMAP_SCAN ' "$undergo" doctor
expect doctor-procs 0 '^GOMAXPROCS +3 \(set\)' "$undergo" --gomaxprocs=3 doctor
expect doctor-unprivileged 0 '^rseq ' "${as_nobody[@]}" "$undergo" doctor
if unshare -m true 2>/dev/null && [ -x /bin/umount ]; then
  expect doctor-without-proc 0 '^PAGEMAP_SCAN +no \(ENOENT\)' \
    unshare -m sh -c "umount -l /proc /sys; exec $undergo doctor"
else skip doctor-without-proc 'no right to unmount'; fi
expect doctor-limited 0 '^address space limit +200000 KiB' \
  sh -c "ulimit -v 200000; exec $undergo doctor"
refuse doctor-with-argument 2 'doctor takes no argument' "$undergo" doctor me

### The settings: each option reaches the program, if it is well-formed
expect gogc 0 '^GOGC=50$' "$undergo" --gogc=50 ./show
expect gogc-separate-value 0 '^GOGC=off$' "$undergo" --gogc off ./show
expect gogc-wins-over-environment 0 '^GOGC=50$' env GOGC=20 "$undergo" --gogc=50 ./show
expect gomemlimit 0 '^GOMEMLIMIT=3GiB$' "$undergo" --gomemlimit=3GiB ./show
expect gomaxprocs 0 '^GOMAXPROCS=2$' "$undergo" --gomaxprocs=2 ./show
expect godebug 0 '^GODEBUG=gctrace=1,schedtrace=9$' \
  "$undergo" --godebug=gctrace=1,schedtrace=9 ./show
expect godebug-merges 0 '^GODEBUG=netdns=go,gctrace=2$' \
  env GODEBUG=gctrace=1,netdns=go "$undergo" --godebug=gctrace=2 ./show
expect keys 0 '^UNDERGO=gc=off,sched=off,badfree=ignore,stats=exit,purge=2s,thp=off,log=x$' \
  "$undergo" --gc=off --sched=off --badfree=ignore --stats=exit --purge=2s --thp=off --log=x \
  ./show
expect keys-merge 0 '^UNDERGO=sched=off,stats=exit,gc=off$' \
  env UNDERGO=gc=report,sched=off,stats=exit "$undergo" --gc=off ./show
expect environment-is-kept 0 '^UNDERGO=gc=report$' env UNDERGO=gc=report "$undergo" ./show
expect environment-is-not-invented 0 '^UNDERGO=\(unset\)$' "$undergo" ./show
for setting in gogc=x gogc= gogc=1.5 gomemlimit=1GB gomemlimit=-1 gomaxprocs=many \
  godebug=gctrace=x godebug=1 gc=maybe gc= sched=1 badfree=never stats=on purge=1 purge=soon \
  thp=madvise dump=KILL deadlock=yes log=; do
  refuse "bad --$setting" 2 "^undergo: --${setting%%=*}=\".*\" .* takes " \
    "$undergo" "--$setting" ./show
done
refuse log-with-comma 2 'comma' "$undergo" --log=a,b ./show
for setting in GOGC=x GOMEMLIMIT=1GB GOMAXPROCS=many GODEBUG=gctrace=x UNDERGO=gc=maybe; do
  refuse "bad $setting" 2 "^undergo: ${setting%%=*}=\"${setting#*=}\" .*takes " \
    env "$setting" "$undergo" ./show
done
refuse unknown-key 2 '"colour=red".* keys are gc=on\|off' env UNDERGO=colour=red "$undergo" ./show
expect unknown-godebug 0 '^GODEBUG=http2client=0$' env GODEBUG=http2client=0 "$undergo" ./show
# Each row of the table has its option in the help and its place in the manual page.
names=$(sed -nE 's/^UNDERGO_(VARIABLE|KEY|ENUM_KEY|GODEBUG)\(([A-Za-z0-9]+),.*/\1 \2/p' \
  "$root/lib/abi/options.def")
missing=
while read -r kind name; do
  flag=$(echo "$name" | tr '[:upper:]' '[:lower:]')
  [ "$kind" = GODEBUG ] || grep -q -- "--$flag=" help.txt || missing="$missing help:$name"
  grep -qE "(^|[^a-z])$name([^a-z]|$)" "$root/man/undergo.1" || missing="$missing man:$name"
done <<<"$names"
if [ -n "$names" ] && [ -z "$missing" ]; then ok every-row-is-documented
else fail every-row-is-documented "missing:$missing"; fi

### What the program gets
expect preload 0 "^LD_PRELOAD=$library\$" "$undergo" ./show
expect preload-is-kept 0 "^LD_PRELOAD=$library:$work/other.so\$" \
  env LD_PRELOAD="$work/other.so" "$undergo" ./show
expect preload-is-not-doubled 0 "^LD_PRELOAD=$library:$work/other.so\$" \
  env LD_PRELOAD="$work/other.so $library" "$undergo" ./show
ln -s "$library" link.so
expect preload-is-not-doubled-by-links 0 "^LD_PRELOAD=$library\$" \
  env LD_PRELOAD="$work/link.so" "$undergo" ./show
expect nested 0 "^LD_PRELOAD=$library\$" "$undergo" "$undergo" ./show
expect library-option 0 "^LD_PRELOAD=$work/other.so\$" "$undergo" --library=other.so ./show
refuse library-missing 2 '"nowhere.so"' "$undergo" --library=nowhere.so ./show
refuse library-is-none 2 'not a library' "$undergo" --library=empty.c ./show
mkdir 'bad:dir' && cp other.so 'bad:dir/'
refuse library-with-colon 2 'colon' "$undergo" --library=bad:dir/other.so ./show
mkdir alone beside && cp inst/bin/undergo alone/ && cp inst/bin/undergo other.so beside/
mv beside/other.so beside/libundergo.so
refuse library-not-found 2 'libundergo.so is neither' alone/undergo ./show
expect preload-of-another-undergo-goes 0 "^LD_PRELOAD=$library:$work/other.so\$" \
  env LD_PRELOAD="$work/beside/libundergo.so:$work/other.so" "$undergo" ./show
expect library-beside 0 "^LD_PRELOAD=$work/beside/libundergo.so\$" beside/undergo ./show
ln -s "$undergo" linked-undergo
expect library-by-link 0 "^LD_PRELOAD=$library\$" ./linked-undergo ./show
expect status 7 '^argv1=7$' "$undergo" ./show 7
expect arguments 0 '^argv2=--gc=off$' "$undergo" ./show 0 --gc=off
expect dashes 0 '^argv1=0$' "$undergo" --gc=off -- ./show 0
expect argv0 0 '^argv0=\./show$' "$undergo" ./show
mkdir path && cp show path/findme && cp show path/doctor
expect path-lookup 0 '^argv0=findme$' env PATH="$work/path:$PATH" "$undergo" findme
expect path-empty-element 0 '^argv0=show$' env PATH=":$PATH" "$undergo" show
expect path-unset 0 '' env -u PATH "$undergo" true
expect program-named-like-a-subcommand 0 '^argv0=doctor$' \
  env PATH="$work/path:$PATH" "$undergo" -- doctor
mkdir locked && cp show locked/findme && chmod 644 locked/findme
expect path-goes-on-after-locked 0 '^argv0=findme$' \
  env PATH="$work/locked:$work/path:$PATH" "$undergo" findme
mkdir -p folder/findme
expect path-goes-on-after-directory 0 '^argv0=findme$' \
  env PATH="$work/folder:$work/path:$PATH" "$undergo" findme
refuse path-only-directory 126 'is a directory' env PATH="$work/folder" "$undergo" findme
refuse path-only-locked 126 'findme" is not executable' \
  env PATH="$work/locked:/bin" "$undergo" findme

### What cannot run
refuse not-found 127 '"no-such-program-here" is not in PATH' "$undergo" no-such-program-here
refuse not-there 127 '"./nowhere" is not there' "$undergo" ./nowhere
refuse below-a-file 127 '"./show/x" is not there' "$undergo" ./show/x
refuse empty-name 127 'empty' "$undergo" ''
refuse newline-in-name 127 '"a\?b"' "$undergo" $'a\nb'
cp show locked.bin && chmod 644 locked.bin
refuse not-executable 126 'not executable' "$undergo" ./locked.bin
refuse directory 126 'is a directory' "$undergo" ./path
mkfifo pipe && chmod 755 pipe
refuse fifo 126 'not a regular file' "$undergo" ./pipe
cp show unreadable && chmod 711 unreadable
if [ "$(id -u)" = 0 ]; then
  refuse unreadable 126 'cannot be read' "${as_nobody[@]}" "$undergo" ./unreadable
else
  chmod 111 unreadable
  refuse unreadable 126 'cannot be read' "$undergo" ./unreadable
fi

echo 'int main(void) { return 0; }' >hello.c
if $cc -static -o hello-static hello.c 2>/dev/null; then
  refuse static 2 'statically linked' "$undergo" ./hello-static
else skip static 'no static C library'; fi
if $cc -static-pie -o hello-static-pie hello.c 2>/dev/null; then
  refuse static-pie 2 'statically linked' "$undergo" ./hello-static-pie
else skip static-pie 'no static C library'; fi
$cc -no-pie -o hello-no-pie hello.c && expect no-pie 0 '' "$undergo" ./hello-no-pie
$cc -o hello-musl hello.c -Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1
refuse musl 2 'another C library' "$undergo" ./hello-musl
$cc -o hello-lost hello.c -Wl,--dynamic-linker=/nowhere/ld-linux-x86-64.so.2
refuse loader-missing 127 'loader "/nowhere/ld-linux' "$undergo" ./hello-lost
loader=$(readlink -f /lib64/ld-linux-x86-64.so.2)
cp "$loader" ld-linux-x86-64.so.2 && chmod 755 ld-linux-x86-64.so.2
expect loader-by-hand 0 '^argv0=./show$' "$undergo" ./ld-linux-x86-64.so.2 ./show

# elf CLASS DATA MACHINE...: a header, the machine in two octal bytes, zeros up to 64 bytes.
elf() {
  printf '\177ELF'
  printf '%b' "\\0$1\\0$2\\0001\\0000"
  head -c 8 /dev/zero
  printf '%b' "\\0002\\0000\\0$3\\0$4"
  head -c 44 /dev/zero
}
elf 1 1 3 0 >i386 && elf 1 1 76 0 >x32 && elf 2 1 267 0 >aarch64 && elf 2 2 0 26 >s390x &&
  elf 2 1 76 0 >no-segments
cp show swapped # a program whose header claims the other byte order
printf '\002' | dd of=swapped bs=1 seek=5 conv=notrunc status=none
printf '\000\076' | dd of=swapped bs=1 seek=18 conv=notrunc status=none
printf '\177ELF\002\001' >stub
chmod 755 i386 x32 aarch64 s390x swapped no-segments stub
refuse i386 2 '32-bit' "$undergo" ./i386
refuse x32 2 '32-bit' "$undergo" ./x32
refuse aarch64 2 'another machine \(ELF machine 183\)' "$undergo" ./aarch64
refuse big-endian 2 'another machine \(ELF machine 22\)' "$undergo" ./s390x
refuse swapped-elf 126 'malformed' "$undergo" ./swapped
refuse malformed-elf 126 'malformed' "$undergo" ./no-segments
refuse truncated-elf 126 'malformed' "$undergo" ./stub

### Programs that gain privileges
cp show set-user && chmod 4755 set-user
cp show set-group && chmod 2755 set-group
expect set-user-of-the-user 0 '^argv0' "$undergo" ./set-user
expect set-group-of-the-group 0 '^argv0' "$undergo" ./set-group
if [ "$(id -u)" = 0 ]; then
  nosuid=$(findmnt -no OPTIONS -T "$work" 2>/dev/null | grep -c nosuid)
  if [ "$nosuid" = 0 ]; then
    refuse set-user-of-another 2 'set-user-ID' "${as_nobody[@]}" "$undergo" ./set-user
    refuse set-group-of-another 2 'set-group-ID' "${as_nobody[@]}" "$undergo" ./set-group
    expect set-user-without-new-privileges 0 '^argv0' \
      "${as_nobody[@]}" setpriv --no-new-privs "$undergo" ./set-user
    cp show with-caps
    if command -v setcap >/dev/null && setcap cap_net_raw+ep with-caps 2>/dev/null ||
      python3 -c "import os; os.setxattr('with-caps', 'security.capability',
bytes.fromhex('0100000200200000000000000000000000000000'))" 2>/dev/null; then
      refuse capabilities 2 'file capabilities' "${as_nobody[@]}" "$undergo" ./with-caps
      expect capabilities-of-root 0 '^argv0' "$undergo" ./with-caps
    else skip capabilities 'neither setcap nor python3 can set them here'; fi
  else skip set-user-of-another "$work is on a nosuid mount"; fi
else
  other=$(find /usr/bin /bin -maxdepth 1 -type f -perm -4005 -user root 2>/dev/null | head -n 1)
  if [ -n "$other" ]; then refuse set-user-of-another 2 'set-user-ID' "$undergo" "$other"
  else skip set-user-of-another 'no set-user-ID program here'; fi
fi

### Scripts
script() { printf '%b' "$2" >"$1" && chmod 755 "$1"; }
script sh.script '#!/bin/sh\nexec ./show "$@"\n'
expect script 5 '^argv1=5$' "$undergo" ./sh.script 5
script show.script "#! $work/show  one two \n"
expect script-argument 0 '^argv1=one two$' "$undergo" ./show.script
expect script-path-lookup 0 'LD_PRELOAD' env PATH="$work:$PATH" "$undergo" sh.script
script second.script "#!$work/show.script\n"
expect script-of-a-script 0 "^argv2=$work/show.script\$" "$undergo" ./second.script
script loop.script "#!$work/loop.script\n"
refuse script-loop 126 'too deep' "$undergo" ./loop.script
script lost.script '#!/nowhere/interp\n'
refuse script-interpreter-missing 127 '"/nowhere/interp" is not there \(interpreter of' \
  "$undergo" ./lost.script
script crlf.script '#!/bin/sh\r\ntrue\r\n'
refuse script-crlf 127 '"/bin/sh\?" is not there' "$undergo" ./crlf.script
script locked.script "#!$work/locked.bin\n"
refuse script-interpreter-not-executable 126 'not executable.*interpreter of' \
  "$undergo" ./locked.script
script dir.script "#!$work/path\n"
refuse script-interpreter-directory 126 'is a directory' "$undergo" ./dir.script
if [ -x hello-static ]; then
  script static.script "#!$work/hello-static\n"
  refuse script-interpreter-static 2 'statically linked.*interpreter of "./static.script"' \
    "$undergo" ./static.script
  mkdir static-path && cp hello-static static-path/statprog
  script env-static.script '#!/usr/bin/env statprog\n'
  refuse env-static 2 'static-path/statprog" is statically linked.*interpreter of' \
    env PATH="$work/static-path:$PATH" "$undergo" ./env-static.script
  script env-split-static.script "#!/usr/bin/env -S 'A=b c' -u C statprog --x\n"
  refuse env-split-static 2 'statically linked' \
    env PATH="$work/static-path:$PATH" "$undergo" ./env-split-static.script
  script env-tight-static.script '#!/usr/bin/env -Sstatprog --x\n'
  refuse env-tight-static 2 'statically linked' \
    env PATH="$work/static-path:$PATH" "$undergo" ./env-tight-static.script
else skip script-static 'no static C library'; fi
script env.script '#!/usr/bin/env findme\n'
expect env-script 0 '^argv1=./env.script$' env PATH="$work/path:$PATH" "$undergo" ./env.script
script env-split.script "#!/usr/bin/env -S GOGC=7 findme 'a b'\n"
expect env-split-script 0 '^argv1=a b$' env PATH="$work/path:$PATH" "$undergo" ./env-split.script
script env-path.script "#!/usr/bin/env -S PATH=$work/path findme\n"
expect env-script-with-its-own-path 0 '^argv0=findme$' "$undergo" ./env-path.script
script env-lost.script '#!/usr/bin/env no-such-program-here\n'
refuse env-program-missing 127 '"no-such-program-here" is not in PATH' "$undergo" ./env-lost.script
script plain.script './show "$@"\n'
expect text-without-interpreter 6 '^argv1=6$' "$undergo" ./plain.script 6
expect text-has-the-library 0 "^LD_PRELOAD=$library\$" "$undergo" ./plain.script
script empty.script ''
expect empty-file 0 '' "$undergo" ./empty.script
script bare.script '#!\n./show "$@"\n'
expect script-without-a-word 4 '^argv1=4$' "$undergo" ./bare.script 4
printf 'MZ\000\001\002\nabc' >binary && chmod 755 binary
refuse unknown-format 126 'no program that this kernel knows' "$undergo" ./binary

### The same settings in the library, without the launcher
if [ -e "$build/libundergo.so" ]; then
  expect own-library 0 "^LD_PRELOAD=$build/libundergo.so\$" "$build/undergo" ./show
  for setting in GOGC=x GOMEMLIMIT=1GB GOMAXPROCS=many GODEBUG=gctrace=x UNDERGO=gc=maybe \
    UNDERGO=colour=red; do
    refuse "preload bad $setting" 2 "^undergo: ${setting%%=*}=\"${setting#*=}\"" \
      env "$setting" LD_PRELOAD="$build/libundergo.so" ./show
  done
  for setting in GOGC=off GOMEMLIMIT=1GiB GOMAXPROCS=0 GODEBUG=http2client=0,gctrace=0 \
    UNDERGO=gc=off; do
    expect "preload good $setting" 0 "^$setting\$" \
      env "$setting" LD_PRELOAD="$build/libundergo.so" ./show
  done
else
  skip own-library 'libundergo.so is not built'
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
