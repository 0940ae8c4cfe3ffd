#!/bin/sh
# Boots a Debian in mounts, processes and cgroups of its own and in the network namespace of the caller. What it writes is forgotten.
#
#   boot.sh ROOT DIRECTORY
#
# ROOT is the Debian, which stays as it is; DIRECTORY is where it finds what it is given, as /mnt.
set -eu
base=$1 directory=$2

. "$(dirname "$0")/../../../tests/boot/shared.sh"
[ "${3-}" = inside ] || enter "$directory" "$0" "$base" "$directory"

mount --make-rprivate /
mount -t tmpfs written "$directory/written"
mkdir "$directory/written/upper" "$directory/written/work" "$directory/written/root"
root=$directory/written/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=$directory/written/upper,workdir=$directory/written/work" "$root"
cd "$root"
mount --bind "$directory" mnt
mount_kernel
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
echo node-1 >etc/hostname
exec env -i container=portguard PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --log-target=console --log-level=info --show-status=no
