# SPDX-License-Identifier: GPL-2.0
# The package, in the Debian in /debian: installed, used, purged.
set -e
cp /umcg-dkms.deb /umcg-test /debian/
for point in proc sys dev tmp; do
	mount --bind /$point /debian/$point
done
in_debian() {
	chroot /debian /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
in_debian /lib/systemd/systemd-udevd --daemon
in_debian dpkg -i /umcg-dkms.deb
in_debian dkms status
grep umcg /proc/modules
in_debian udevadm trigger --subsystem-match=misc
in_debian udevadm settle
mode=$(in_debian stat -c '%a %G' /dev/umcg)
echo "/dev/umcg: $mode"
[ "$mode" = "660 umcg" ]
in_debian /umcg-test blocks
in_debian dpkg --purge umcg-dkms
[ ! -e /dev/umcg ]
[ -z "$(in_debian dkms status)" ]
[ -z "$(find /debian/lib/modules -name 'umcg*')" ]
echo "ok   installed, loaded, used, purged"
