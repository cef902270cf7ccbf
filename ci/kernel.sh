#!/usr/bin/env bash
# Tests the kernel module and the device provider in QEMU, on Debian's stock kernels 6.1 and 6.12:
# the module's own tests, the test suite of the workspace on the device, the cost of the calls, and
# whether the tests notice a module that is broken on purpose. kernel/qemu/packages.sh downloads the
# kernels and unpacks them in a cache; without the packages this script fails.
#     KERNELS="6.12" ci/kernel.sh        only this kernel; 6.1-rt and 6.12-rt have PREEMPT_RT
#     KERNEL_TESTS="conformance" ...     only these test programs of the workspace
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need cpio cpio
need gcc gcc
need make make
need perl perl
# A tool in the kernel headers is linked against this library.
ldconfig -p | grep -q libelf.so.1 || need libelf-library libelf1

out=$target/kernel
qemu=$root/kernel/qemu
mkdir -p "$out"/{t,e}

"$qemu/retry.sh" --test

say "kernel: test programs for the guest"
gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -o "$out/umcg-test" kernel/tests/*.c
# Optimized: under QEMU's emulation the tests run so much faster that the build time pays off.
rm -f "$out"/t/* "$out"/e/*
cargo test --release -p umcg-tests --test '*' --no-run 2>&1 | tee "$out/cargo.log"
sed -n 's/.*Executable tests.*(\(.*\))$/\1/p' "$out/cargo.log" | while read -r binary; do
    name=$(basename "$binary")
    name=${name%-*}
    [[ -z ${KERNEL_TESTS:-} || " $KERNEL_TESTS " == *" $name "* ]] || continue
    strip -o "$out/t/$name" "$binary"
done
[[ -n $(ls "$out/t") ]] || { echo "no test binaries were built"; exit 1; }
cargo build --release -p umcg-examples --bins
for program in hello threadpool_dropin tree_hash bad_neighbour; do
    strip -o "$out/e/$program" "$target/release/$program"
done
adds=()
for file in "$out"/t/* "$out"/e/*; do
    adds+=(--add "$file:/$(basename "$(dirname "$file")")/$(basename "$file")")
done

# module FOLDER SUFFIX [MAKE ARGUMENT...]: builds the module and prints where it is. Any warning of
# the compiler or of kernel-doc is an error.
module() {
    local build=$out/module-$2
    rm -rf "$build"
    mkdir -p "$build"
    cp kernel/{Kbuild,Makefile} kernel/*.[ch] "$build"
    "$(readlink -f "$1/headers/scripts")/kernel-doc" -none "$build"/*.[ch] > "$build/doc" 2>&1 || true
    if [[ -s $build/doc ]]; then
        cat "$build/doc" >&2
        return 1
    fi
    make -s -C "$1/headers" M="$build" W=1 "${@:3}" modules > "$build/log" 2>&1 ||
        { cat "$build/log" >&2; return 1; }
    if grep -E 'warning|error' "$build/log" >&2; then
        return 1
    fi
    echo "$build/umcg.ko"
}

for series in ${KERNELS:-6.1 6.12}; do
    folder=$("$qemu/packages.sh" "$series")
    [[ -n ${UMCG_QEMU_ACCEL:-} ]] || UMCG_QEMU_ACCEL=$("$qemu/accelerator.sh" "$folder/vmlinuz")
    export UMCG_QEMU_ACCEL
    say "kernel $(cat "$folder/version"): the module's tests"
    ko=$(module "$folder" "$series")
    # SLUB fills a freed registration with a pattern, which the hostile scenario looks for.
    "$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$ko" --script "$qemu/guest/module.sh" \
        --append slub_debug=FPZ,kmalloc-cg-256,kmalloc-cg-512,kmalloc-cg-1k \
        --add "$out/umcg-test" --time 600 --log "$out/$series-module.log"
    # One test has 10,000 blocked threads and needs this much memory.
    say "kernel $(cat "$folder/version"): the workspace's tests on the device"
    "$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$ko" --script "$qemu/guest/rust.sh" \
        "${adds[@]}" --memory 3072 --time 900 --log "$out/$series-rust.log"
    say "kernel $(cat "$folder/version"): instructions"
    "$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$ko" --script "$qemu/guest/bench.sh" \
        --add "$out/umcg-test" --icount --time 200
done

say "kernel: the tests notice a broken module"
ko=$(module "$folder" debug UMCG_DEBUG=1)
"$qemu/boot.sh" --kernel "$folder/vmlinuz" --module "$ko" \
    --arguments "break_gate=N break_requeue_gate=N break_wake=N" \
    --script "$qemu/guest/broken.sh" --add "$out/umcg-test" --time 300
