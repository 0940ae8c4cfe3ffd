#!/bin/sh
# Boots systemd, udevd and networkd of this machine's packages, in mounts, processes and cgroups of their own and in the
# network namespace of the caller. Everything that is written goes to the directory that is given.
#
#   boot.sh DIRECTORY UDEV
#
# DIRECTORY has usr/ (laid over the machine's), etc/ and state/ (as /var/lib/portguard), and gets result/; UDEV is where
# Debian's package udev is unpacked, with usr/ as its root.
set -eu
directory=$1 udev=$2

. "$(dirname "$0")/shared.sh"
[ "${3-}" = inside ] || enter "$directory" "$0" "$directory" "$udev"

mount --make-rprivate /
root=$directory/root
mkdir -p "$root" "$directory/result"
mount -t tmpfs root "$root"
cd "$root"
mkdir -p etc run var/lib/portguard var/log proc sys dev tmp result usr opt
mount -t overlay overlay -o "lowerdir=$directory/usr:$udev:/usr" usr
ln -s usr/bin usr/sbin usr/lib .
[ ! -e /usr/lib64 ] || ln -s usr/lib64 .
# No rules but those that tell systemd of devices: whatever else this machine has is no matter of the test.
cp usr/lib/udev/rules.d/99-systemd.rules tmp/
mount -t tmpfs rules usr/lib/udev/rules.d
cp tmp/99-systemd.rules usr/lib/udev/rules.d/
cp -r "$directory/etc/." etc/
grep -E '^(root|systemd-network|messagebus|nobody):' /etc/passwd >etc/passwd
cp /etc/group etc/group
echo 00000000000000000000000000000001 >etc/machine-id
mount --bind "$directory/state" var/lib/portguard
mount --bind "$directory/result" result
mount_kernel
exec env -i container=portguard PATH=/usr/sbin:/usr/bin \
    chroot "$root" /usr/lib/systemd/systemd --unit=boot.target --log-target=console --log-level=info --show-status=no
