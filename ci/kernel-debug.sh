#!/usr/bin/env bash
# The kernel module on a kernel with lockdep, KASAN, and the other checks of
# kernel/qemu/debug.config, built from Debian's linux-source and cached outside the repository.
# On demand: about 10 minutes of two CPUs for the kernel the first time.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need cpio cpio
need gcc gcc
need make make
need perl perl
need bc bc
need flex flex
need bison bison
need xz xz-utils
[[ -e /usr/include/libelf.h ]] || need libelf-headers libelf-dev

out=$target/kernel
qemu=$root/kernel/qemu
folder=$("$qemu/debug-kernel.sh" "${SERIES:-6.1}")
mkdir -p "$out/module-lockdep"
UMCG_QEMU_ACCEL=$("$qemu/accelerator.sh" "$folder/vmlinuz")
export UMCG_QEMU_ACCEL

say "checkpatch"
# compat.h is about versions; umcg_uapi.h is for user space, which has no __aligned().
perl "$folder/source/scripts/checkpatch.pl" --no-tree --strict --quiet \
    --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON,PREFER_DEFINED_ATTRIBUTE_MACRO \
    -f kernel/*.c kernel/*.h

gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -o "$out/umcg-test" kernel/tests/*.c
cp kernel/{Kbuild,Makefile} kernel/*.[ch] "$out/module-lockdep"
make -s -C "$folder/headers" M="$out/module-lockdep" UMCG_DEBUG=1 modules
ko=$out/module-lockdep/umcg.ko

say "lockdep and KASAN, $(cat "$folder/version")"
"$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$ko" --script "$qemu/guest/module.sh" \
    --add "$out/umcg-test" --time 1500 --memory 2048 --log "$out/lockdep.log"

say "lockdep notices a wake-up under a lock"
if "$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$ko" --arguments break_lock=N \
    --script "$qemu/guest/broken.sh" --add "$out/umcg-test" --time 300 --memory 2048 \
    > "$out/lockdep-broken.log" 2>&1; then
    echo "it did not"
    exit 1
fi
grep -m1 'circular locking' "$out/lockdep-broken.log"
