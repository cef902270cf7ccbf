#!/usr/bin/env bash
# Tests the kernel module on kernels with lockdep, KASAN and the other checks of
# kernel/qemu/debug.config: 6.1 with PREEMPT and 6.12 with PREEMPT_RT. They are built from Debian's
# linux-source and cached outside the repository. Run on demand: the first run takes about 10
# minutes of two CPUs for each kernel.
#     SERIES=6.12 ci/kernel-debug.sh     only one of them
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
mkdir -p "$out"
gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -o "$out/umcg-test" kernel/tests/*.c

for series in ${SERIES:-6.1 6.12}; do
    folder=$("$qemu/debug-kernel.sh" "$series")
    [[ -n ${UMCG_QEMU_ACCEL:-} ]] || UMCG_QEMU_ACCEL=$("$qemu/accelerator.sh" "$folder/vmlinuz")
    export UMCG_QEMU_ACCEL

    say "checkpatch of $series"
    # Two exceptions: compat.h compares kernel versions, and umcg_uapi.h is for user space, which
    # does not have __aligned().
    perl "$folder/source/scripts/checkpatch.pl" --no-tree --strict --quiet \
        --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON,PREFER_DEFINED_ATTRIBUTE_MACRO \
        -f kernel/*.c kernel/*.h

    build=$out/module-debug-$series
    rm -rf "$build"
    mkdir -p "$build"
    cp kernel/{Kbuild,Makefile} kernel/*.[ch] "$build"
    make -s -C "$folder/headers" M="$build" UMCG_DEBUG=1 modules
    boot=("$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$build/umcg.ko"
        --add "$out/umcg-test" --memory 2048)

    say "lockdep and KASAN, $(cat "$folder/version")"
    "${boot[@]}" --script "$qemu/guest/module.sh" --time 1500 --log "$out/debug-$series.log"

    say "lockdep reports a wake-up under a lock"
    if "${boot[@]}" --arguments break_lock=N --script "$qemu/guest/broken.sh" --time 300 \
        > "$out/debug-$series-broken.log" 2>&1; then
        echo "lockdep reported nothing"
        exit 1
    fi
    grep -m1 'circular locking' "$out/debug-$series-broken.log"
done
