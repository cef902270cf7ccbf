#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# packages.sh SERIES: downloads Debian's newest stock kernel of a series (6.1, 6.12, or with
# PREEMPT_RT 6.1-rt, 6.12-rt) and its headers, unpacks both in the cache, and prints the folder,
# which contains:
#   vmlinuz  System.map  version  headers -> the KDIR to build modules with
# Nothing is installed. The packages are downloaded with an apt state of the cache's own and only
# unpacked.
#
# UMCG_KERNEL_CACHE: the cache, by default ${XDG_CACHE_HOME:-~/.cache}/umcg-kernel
# UMCG_DEBIAN_MIRROR: by default http://deb.debian.org
set -euo pipefail

series=${1:?series, 6.1 or 6.12, 6.1-rt or 6.12-rt}
flavour=amd64
[ "${series%-rt}" = "$series" ] || flavour=rt-amd64
release=bookworm
mirror=${UMCG_DEBIAN_MIRROR:-http://deb.debian.org}
cache=${UMCG_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/umcg-kernel}
target=$cache/$series
state=$cache/apt

if [ -e "$target/complete" ]; then
	echo "$target"
	exit
fi

mkdir -p "$state"/lists/partial "$state"/cache/archives/partial
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || keyring=/etc/apt/trusted.gpg.d/debian-archive-$release-automatic.asc
cat > "$state/sources.list" <<SOURCES
deb [signed-by=$keyring] $mirror/debian $release main
deb [signed-by=$keyring] $mirror/debian $release-backports main
deb [signed-by=$keyring] $mirror/debian-security $release-security main
SOURCES
options=(-o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=-
	-o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache"
	-o APT::Sandbox::User="$(id -un)" -o APT::Architecture=amd64)
apt-get "${options[@]}" -qq update >&2

version=$(apt-cache "${options[@]}" search --names-only "^linux-image-${series%-rt}\.[0-9].*-$flavour-unsigned\$" |
	cut -d' ' -f1 | if [ $flavour = rt-amd64 ]; then cat; else grep -v -e cloud -e -rt-; fi |
	sed 's/^linux-image-//; s/-unsigned$//' | sort -V | tail -1)
[ -n "$version" ] || { echo "packages.sh: no stock kernel $series in $release" >&2; exit 1; }
common=${version%-"$flavour"}-common
[ $flavour = amd64 ] || common=$common-rt
kbuild=$(apt-cache "${options[@]}" depends "linux-headers-$version" |
	sed -n 's/.*Depends: \(linux-kbuild-.*\)/\1/p' | head -1)

rm -rf "$target"
mkdir -p "$target/debs" "$target/root"
echo "packages.sh: $version" >&2
(cd "$target/debs" && apt-get "${options[@]}" -qq download \
	"linux-image-$version-unsigned" "linux-headers-$version" "linux-headers-$common" "$kbuild") >&2
for package in "$target"/debs/*.deb; do
	dpkg-deb -x "$package" "$target/root"
done
rm -r "$target/debs"

headers=$target/root/usr/src/linux-headers-$version
# This is the only absolute path in the headers. Without vmlinux the module gets no BTF, and its
# build needs no pahole.
echo "include $target/root/usr/src/linux-headers-$common/Makefile" > "$headers/Makefile"
rm -f "$headers/vmlinux"
# The guest runs from an initramfs and needs none of the kernel's modules.
rm -rf "$target/root/lib/modules"
ln -sf "root/boot/vmlinuz-$version" "$target/vmlinuz"
ln -sf "root/boot/System.map-$version" "$target/System.map"
ln -sf "root/usr/src/linux-headers-$version" "$target/headers"
echo "$version" > "$target/version"
touch "$target/complete"
echo "$target"
