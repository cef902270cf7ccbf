#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# retry.sh CONSOLE: may boot.sh start the guest that left this console once more? Prints the reason
# and succeeds if the guest never came to init, or if a register dump shows a state that is
# impossible on x86. Two bugs of QEMU 7.2's TCG cause such dumps. Fails in every other case, and
# always if a line of a stack trace is in the module.
#   EFLAGS with any of bits 22 to 31 set.
#   A breakpoint (Oops: int3) where the byte before RIP is not int3. A kernel that patches its code
#   has an int3 there for a moment (for a static key, for example during insmod and rmmod) and
#   removes it when each CPU has confirmed the new code. TCG may still run a translation of it.
#     retry.sh --test      tests this script itself
set -euo pipefail

retry() {
	if ! grep -q 'UMCG-GUEST up' "$1"; then
		echo "boot.sh: the guest never came to init"
	elif ! grep -Fq '[umcg]' "$1" &&
		grep -Eq 'EFLAGS: *0*([4-9a-f][0-9a-f]{5}|[1-9a-f][0-9a-f]{6,})( |$)' "$1"; then
		echo "boot.sh: impossible EFLAGS in a register dump: QEMU, not the kernel"
	elif ! grep -Fq '[umcg]' "$1" && grep -q 'Oops: int3: ' "$1" &&
		grep -m1 'Code: ' "$1" | grep -Eq ' [0-9a-f]{2} <[0-9a-f]{2}> ' &&
		! grep -m1 'Code: ' "$1" | grep -Eq ' cc <[0-9a-f]{2}> '; then
		echo "boot.sh: a breakpoint where there is none: QEMU, not the kernel"
	else
		return 1
	fi
}

# expect yes|no LINE...: checks whether a guest that came to init and printed these lines is
# started once more.
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
oops='[    5.7] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI'
expect yes "$oops" 'Code: 90 90 f3 0f 1e fa 41 54 55 53 eb <1b> e8 41 ac f0 ff 48'
expect no "$oops" 'Code: 90 90 f3 0f 1e fa 41 54 55 53 cc <1b> e8 41 ac f0 ff 48'
expect no "$oops"
expect no "$oops" 'Code: 53 eb <1b> e8 41' ' umcg_gate+0x5a/0x1b0 [umcg]'
expect no 'BUG: kernel NULL pointer dereference' 'Code: 53 eb <1b> e8 41'
expect no 'UMCG-GUEST status 1 after 5 s'
expect no "$dump 8247030a" ' umcg_gate+0x5a/0x1b0 [umcg]'
! retry <(:) > /dev/null || exit 0
echo "retry.sh: a guest without init is not started again" >&2
exit 1
