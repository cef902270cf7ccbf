#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# boot.sh OPTIONS: boots a kernel in QEMU with a busybox initramfs, loads the module, runs a script,
# and powers the guest off. Fails if the script fails, or if the kernel reports a problem on the
# console.
#
#   --kernel FILE      vmlinuz or bzImage
#   --module FILE      umcg.ko built for this kernel; without it no module is loaded
#   --arguments TEXT   arguments for insmod
#   --script FILE      script that the guest runs with sh, as root, in /
#   --add FILE[:PATH]  copies the file into the guest, executable, together with the shared
#                      libraries that it needs; may be given several times
#   --tree FOLDER      copies the whole folder to /NAME of the folder
#   --smp N            CPUs, default 2
#   --memory MB        default 1024
#   --time SECONDS     time limit, default 300
#   --icount           one CPU, and 1 ns of guest time is 1 instruction
#   --append TEXT      added to the kernel command line
#   --log FILE         keeps the console output
#   --qemu TEXT        more arguments for QEMU
#   --once             never starts the guest a second time
#
# UMCG_QEMU_ACCEL=kvm uses KVM; accelerator.sh finds out whether that works here. The default is
# TCG.
#
# If retry.sh finds a reason on the console, the guest is started once more, and boot.sh says so.
# The first console is then kept as FILE.first beside --log. A test that failed is never repeated.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
smp=2 memory=1024 limit=300 append='' module='' arguments='' log='' icount='' tree='' extra='' once='' adds=()
while [ $# -gt 0 ]; do
	case $1 in
	--kernel) kernel=$2 ;;
	--module) module=$2 ;;
	--arguments) arguments=$2 ;;
	--script) script=$2 ;;
	--add) adds+=("$2") ;;
	--tree) tree=$2 ;;
	--smp) smp=$2 ;;
	--memory) memory=$2 ;;
	--time) limit=$2 ;;
	--append) append=$2 ;;
	--log) log=$2 ;;
	--qemu) extra=$2 ;;
	--icount) icount=1; shift; continue ;;
	--once) once=1; shift; continue ;;
	*) echo "boot.sh: unknown option $1" >&2; exit 2 ;;
	esac
	shift 2
done
for tool in qemu-system-x86_64 busybox cpio; do
	command -v $tool > /dev/null || { echo "boot.sh: $tool is missing" >&2; exit 2; }
done
file -L "$(command -v busybox)" 2> /dev/null | grep -q 'dynamically linked' &&
	{ echo "boot.sh: busybox must be static (busybox-static)" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/root/{bin,proc,sys,dev,tmp,etc}
cp "$(command -v busybox)" "$work/root/bin/busybox"
for name in $("$work/root/bin/busybox" --list); do
	[ "$name" = busybox ] || ln -sf busybox "$work/root/bin/$name"
done
echo 'root:x:0:0::/:/bin/sh' > "$work/root/etc/passwd"
install -m 755 "$here/init" "$work/root/init"
install -m 755 "$script" "$work/root/script"
for add in ${adds[@]+"${adds[@]}"}; do
	path=${add##*:}
	[ "$path" != "$add" ] || path=/${add##*/}
	install -D -m 755 "${add%%:*}" "$work/root/$path"
	# ldd fails for a static program, which needs no libraries.
	ldd "${add%%:*}" 2> /dev/null | grep -o '/[^ )]*' | while read -r library; do
		[ -e "$work/root/$library" ] || install -D -m 755 "$library" "$work/root/$library"
	done || true
done
if [ -n "$module" ]; then
	strip --strip-debug -o "$work/root/umcg.ko" "$module"
	echo "$arguments" > "$work/root/insmod-arguments"
fi
(cd "$work/root" && find . | cpio -o -H newc --quiet) > "$work/initramfs"
# The kernel accepts several archives in a row.
[ -z "$tree" ] ||
	(cd "$(dirname "$tree")" && find "$(basename "$tree")" | cpio -o -H newc --quiet) >> "$work/initramfs"

accelerator=(-accel "tcg,thread=multi" -cpu max)
if [ -n "$icount" ]; then
	smp=1
	accelerator=(-accel tcg -icount "shift=0,sleep=off" -cpu max)
elif [ "${UMCG_QEMU_ACCEL:-tcg}" = kvm ]; then
	accelerator=(-accel kvm -cpu "host,-arch-capabilities")
fi

complaints='WARNING:|BUG:|Oops:|Kernel panic|general protection|double fault|circular locking|inconsistent lock|suspicious RCU|KASAN|UBSAN|refcount_t:|(list_add|list_del) corruption|detected stall|self-detected|soft lockup|blocked for more than|scheduling while atomic|invalid context|Call Trace'

# tsc=reliable turns the clocksource watchdog off. On a busy host the watchdog takes the TSC for
# unstable and patches the code of the running kernel (sched_clock_stable). QEMU 7.2's TCG lets
# another CPU run into the breakpoint of that patch after it is gone: "Oops: int3" in
# sched_clock_cpu().
boot() {
	# shellcheck disable=SC2086 # $extra is several words
	timeout "$limit" qemu-system-x86_64 "${accelerator[@]}" -smp "$smp" \
		-m "$memory" -display none -serial stdio -monitor none -no-reboot -net none $extra \
		-kernel "$kernel" -initrd "$work/initramfs" \
		-append "console=ttyS0 panic=-1 oops=panic quiet tsc=reliable $append" < /dev/null 2>&1 |
		sed -u 's/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\r//g' |
		tee "$work/console" | sed -u '/UMCG-GUEST log/,/UMCG-GUEST status/{/UMCG-GUEST/!d}'
	[ -z "$log" ] || cp "$work/console" "$log"
}

boot || true
if [ -z "$once" ] && "$here/retry.sh" "$work/console"; then
	tail -5 "$work/console"
	[ -z "$log" ] || mv "$log" "$log.first"
	echo "boot.sh: started again, once${log:+, the first console is in $log.first}"
	boot || true
fi
if grep -Eq "$complaints" "$work/console"; then
	echo "boot.sh: FAILED, the kernel complains:"
	grep -E -A40 -m1 "$complaints" "$work/console" | head -60
	exit 1
fi
grep -q 'UMCG-GUEST status 0 ' "$work/console" ||
	{ echo "boot.sh: FAILED, see above (limit ${limit} s)"; exit 1; }
