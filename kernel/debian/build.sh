#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# build.sh [FOLDER]: builds umcg-dkms_VERSION_all.deb in the folder, by default the current one.
# Needs only dpkg-deb.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kernel=$(dirname "$here")
target=$(cd "${1:-.}" && pwd)
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$kernel/dkms.conf")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

source=$tree/usr/src/umcg-$version
install -d "$source" "$tree"/DEBIAN "$tree"/usr/lib/udev/rules.d "$tree"/usr/lib/modules-load.d \
	"$tree"/usr/include/linux "$tree"/usr/share/doc/umcg-dkms
install -m 644 "$kernel"/*.c "$kernel"/*.h "$kernel"/Kbuild "$kernel"/Makefile \
	"$kernel"/dkms.conf "$source"
install -m 644 "$kernel/60-umcg.rules" "$tree/usr/lib/udev/rules.d/60-umcg.rules"
install -m 644 "$kernel/umcg_uapi.h" "$tree/usr/include/linux/umcg.h"
install -m 644 "$kernel/README.md" "$tree/usr/share/doc/umcg-dkms/README.md"
install -m 644 "$here/copyright" "$tree/usr/share/doc/umcg-dkms/copyright"
echo umcg > "$tree/usr/lib/modules-load.d/umcg.conf"
sed "s/@VERSION@/$version/" "$here/control" > "$tree/DEBIAN/control"
for script in postinst prerm; do
	sed "s/@VERSION@/$version/" "$here/$script" > "$tree/DEBIAN/$script"
	chmod 755 "$tree/DEBIAN/$script"
done
dpkg-deb --root-owner-group --build "$tree" "$target/umcg-dkms_${version}_all.deb"
