#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug-kernel.sh [SERIES]: builds a small kernel with lockdep, KASAN and more checks from Debian's
# linux-source (default 6.1), in the cache, and prints its folder as packages.sh does. Only the
# configuration differs from Debian's; the source is not patched. The first build takes about 10
# minutes of two CPUs.
#
# Needs bc, flex, bison, libelf-dev, xz-utils and gcc.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
series=${1:-6.1}
cache=${UMCG_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/umcg-kernel}
target=$cache/debug-$series
fragments=("$here/debug.config" "$here/debug-$series.config")
sum=$(cat "${fragments[@]}" | sha256sum | cut -c1-16)

if [ "$(cat "$target/complete" 2> /dev/null)" = "$sum" ]; then
	echo "$target"
	exit
fi
for tool in bc flex bison xz gcc make; do
	command -v $tool > /dev/null || { echo "debug-kernel.sh: $tool is missing" >&2; exit 2; }
done

"$here/packages.sh" "$series" > /dev/null	# sets up the apt state
state=$cache/apt
options=(-o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=-
	-o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache"
	-o APT::Sandbox::User="$(id -un)" -o APT::Architecture=amd64)
mkdir -p "$target"
if [ ! -e "$target/source/Makefile" ]; then
	rm -rf "$target/source" "$target/unpacked"
	mkdir -p "$target/source" "$target/unpacked"
	(cd "$target" && apt-get "${options[@]}" -qq download "linux-source-$series") >&2
	dpkg-deb -x "$target"/linux-source-*.deb "$target/unpacked"
	tar -C "$target/source" --strip-components=1 -xf "$target"/unpacked/usr/src/linux-source-*.tar.xz
	rm -rf "$target/unpacked" "$target"/linux-source-*.deb
fi
(
	cd "$target/source"
	make -s allnoconfig
	scripts/kconfig/merge_config.sh -m .config "${fragments[@]}" > /dev/null
	make -s olddefconfig
	missing=$(grep -hE '^CONFIG.*=' "${fragments[@]}" | grep -vxFf .config || true)
	[ -z "$missing" ] || { echo "debug-kernel.sh: not taken: $missing"; exit 1; }
	nice -n 19 make -s -j"${JOBS:-2}" bzImage modules_prepare
	# No modules of the kernel are built, but umcg.ko is linked against the exported symbols.
	cp vmlinux.symvers Module.symvers
) >&2
ln -sfn source/arch/x86/boot/bzImage "$target/vmlinuz"
ln -sfn source/System.map "$target/System.map"
ln -sfn source "$target/headers"
make -s -C "$target/source" kernelrelease > "$target/version"
echo "$sum" > "$target/complete"
echo "$target"
