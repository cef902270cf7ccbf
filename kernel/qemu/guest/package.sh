# SPDX-License-Identifier: GPL-2.0
# Installs, uses and purges the package, in the Debian in /debian.
set -e
cp /umcg-dkms.deb /umcg-test /debian/
for point in proc sys dev tmp; do
	mount --bind /$point /debian/$point
done
in_debian() {
	chroot /debian /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
modules() {
	find /debian/lib/modules /debian/usr/lib/modules -name 'umcg.ko*' | sed 's|^/debian\(/usr\)*||' | sort -u
}
in_debian /lib/systemd/systemd-udevd --daemon
# No module can be built with these headers. The installation must go on without one.
mkdir -p /debian/lib/modules/0.broken/build
in_debian dpkg -i /umcg-dkms.deb > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
grep 'umcg-dkms: no module for 0.broken' /tmp/out
in_debian dkms status
modules
kernels=$(in_debian sh -c 'ls -d /lib/modules/*/build' | wc -l)
[ "$kernels" -ge 3 ]
[ "$(modules | wc -l)" = $((kernels - 1)) ]
grep umcg /proc/modules
in_debian udevadm trigger --subsystem-match=misc
in_debian udevadm settle
mode=$(in_debian stat -c '%a %G' /dev/umcg)
echo "/dev/umcg: $mode"
[ "$mode" = "660 umcg" ]
in_debian /umcg-test blocks-are-reported
in_debian dpkg --purge umcg-dkms
[ ! -e /dev/umcg ]
[ -z "$(in_debian dkms status)" ]
[ -z "$(modules)" ]
echo "ok   installed, loaded, used, purged"
