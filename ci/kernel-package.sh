#!/usr/bin/env bash
# Tests the Debian package of the kernel module. Builds it, and boots a guest with a stock kernel
# and a Debian that has the headers of two kernels. There the package is installed, DKMS compiles
# the module for both kernels, the module is loaded and used, and the package is purged. Run on
# demand, as root: debootstrap makes the Debian, in the cache of the kernels.
#     SERIES=6.12 ci/kernel-package.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

[[ $EUID == 0 ]] || { echo "this needs root, for a chroot" >&2; exit 1; }
need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need cpio cpio
need gcc gcc
need debootstrap debootstrap

out=$target/kernel
qemu=$root/kernel/qemu
mkdir -p "$out"
folder=$("$qemu/packages.sh" "${SERIES:-6.1}")
version=$(<"$folder/version")
UMCG_QEMU_ACCEL=$("$qemu/accelerator.sh" "$folder/vmlinuz")
export UMCG_QEMU_ACCEL
headers=()
for series in 6.1 6.12; do
    headers+=("linux-headers-$(<"$("$qemu/packages.sh" "$series")/version")")
done
# The Debian depends on the newest pair of kernels, not on which of the two is booted.
tree=$(dirname "$folder")/debian-$(sha256sum <<< "${headers[*]}" | cut -c1-8)/debian
if [[ ! -e $tree.complete ]]; then
    say "kernel package: a Debian with dkms, ${headers[*]}"
    rm -rf "$tree"
    mkdir -p "$tree"
    debootstrap --variant=minbase bookworm "$tree" \
        "${UMCG_DEBIAN_MIRROR:-http://deb.debian.org}/debian" > "$out/debootstrap.log"
    sed 's/\[.*\] //' "$(dirname "$folder")/apt/sources.list" > "$tree/etc/apt/sources.list"
    chroot "$tree" apt-get -qq update
    DEBIAN_FRONTEND=noninteractive chroot "$tree" apt-get -qq install -y \
        --no-install-recommends dkms "${headers[@]}" udev adduser >> "$out/debootstrap.log"
    chroot "$tree" apt-get -qq clean
    rm -rf "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,locale,man}
    touch "$tree.complete"
fi

say "kernel package: installed on $version"
gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -o "$out/umcg-test" kernel/tests/*.c
rm -f "$out"/umcg-dkms_*.deb
kernel/debian/build.sh "$out"
"$qemu/boot.sh" --kernel "$folder/vmlinuz" --script "$qemu/guest/package.sh" --tree "$tree" \
    --add "$(ls "$out"/umcg-dkms_*.deb):/umcg-dkms.deb" --add "$out/umcg-test" \
    --memory 4096 --time 900
