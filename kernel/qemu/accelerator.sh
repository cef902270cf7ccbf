#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# accelerator.sh VMLINUZ: prints kvm or tcg, whichever guests should run with on this machine, for
# UMCG_QEMU_ACCEL of boot.sh. Prints the reason on standard error. On some hosts with nested KVM no
# guest starts, so a short test boot decides, not the existence of /dev/kvm. If UMCG_QEMU_ACCEL is
# set already, its value is printed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
say() {
	echo "accelerator: $1, $2" >&2
	echo "$1"
	exit
}

[ -z "${UMCG_QEMU_ACCEL:-}" ] || say "$UMCG_QEMU_ACCEL" "as UMCG_QEMU_ACCEL says"
[ -w /dev/kvm ] || say tcg "/dev/kvm cannot be opened"
script=$(mktemp)
trap 'rm -f "$script"' EXIT
echo 'exit 0' > "$script"
if UMCG_QEMU_ACCEL=kvm "$here/boot.sh" --kernel "$1" --script "$script" --time 15 --once > /dev/null 2>&1; then
	say kvm "a guest booted"
fi
say tcg "no guest boots with the KVM of this machine"
