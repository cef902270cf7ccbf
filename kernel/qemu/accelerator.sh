#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# accelerator.sh VMLINUZ: prints what guests are to run with here, kvm or tcg, for
# UMCG_QEMU_ACCEL of boot.sh, and on standard error why. Nested KVM hosts were seen on which no
# guest starts, hence a short boot decides, not whether /dev/kvm is there. UMCG_QEMU_ACCEL, if it
# is set, is what is printed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
say() {
	echo "accelerator: $1, $2" >&2
	echo "$1"
	exit
}

[ -z "${UMCG_QEMU_ACCEL:-}" ] || say "$UMCG_QEMU_ACCEL" "as UMCG_QEMU_ACCEL says"
[ -w /dev/kvm ] || say tcg "/dev/kvm is not to be had"
script=$(mktemp)
trap 'rm -f "$script"' EXIT
echo 'exit 0' > "$script"
if UMCG_QEMU_ACCEL=kvm "$here/boot.sh" --kernel "$1" --script "$script" --time 15 --once > /dev/null 2>&1; then
	say kvm "a guest booted"
fi
say tcg "no guest boots with the KVM of this machine"
