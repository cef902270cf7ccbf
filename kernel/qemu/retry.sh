#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# retry.sh CONSOLE: may the guest that left this console be started again? Prints why and
# succeeds if it never came to init, or if a register dump shows EFLAGS with bits 22 to 31 set,
# which no x86 can have: a bug of QEMU 7.2's. Never if a line of a trace is in the module.
#     retry.sh --test      checks itself
set -euo pipefail

retry() {
	if ! grep -q 'UMCG-GUEST up' "$1"; then
		echo "boot.sh: the guest never came to init"
	elif ! grep -Fq '[umcg]' "$1" &&
		grep -Eq 'EFLAGS: *0*([4-9a-f][0-9a-f]{5}|[1-9a-f][0-9a-f]{6,})( |$)' "$1"; then
		echo "boot.sh: impossible EFLAGS in a register dump: QEMU, not the kernel"
	else
		return 1
	fi
}

# expect yes|no LINE...: whether a guest that came to init and printed these is started again.
expect() {
	local want=$1 got=no console
	shift
	console=$(mktemp)
	printf '%s\n' 'UMCG-GUEST up 6.1' "$@" > "$console"
	! retry "$console" > /dev/null || got=yes
	rm "$console"
	[ $got = "$want" ] || { echo "retry.sh: $got, not $want: $*" >&2; exit 1; }
}

if [ "$1" != --test ]; then
	retry "$1"
	exit
fi
dump='RSP: 0018:ffffb0c80021fe90 EFLAGS:'
for flags in 00010246 00000246 00200246 003fffff 00000002; do
	expect no "$dump $flags"
done
for flags in 8247030a 00410246 00400000 ffffffff 01000000; do
	expect yes "$dump $flags"
done
expect no 'UMCG-GUEST status 1 after 5 s'
expect no "$dump 8247030a" ' umcg_gate+0x5a/0x1b0 [umcg]'
! retry <(:) > /dev/null || exit 0
echo "retry.sh: a guest without init is not started again" >&2
exit 1
