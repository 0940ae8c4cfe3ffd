#!/bin/sh
# Boots a Debian in mounts, processes and cgroups of its own and in the network namespace of the caller. What it writes is forgotten.
#
#   boot.sh ROOT DIRECTORY
#
# ROOT is the Debian, which stays as it is; DIRECTORY is where it finds what it is given, as /mnt.
set -eu
base=$1 directory=$2

if [ "${3-}" != inside ]; then
    groups=/sys/fs/cgroup/unified
    [ -d "$groups" ] || groups=/sys/fs/cgroup
    mkdir -p "$groups/$(basename "$directory")"
    echo $$ >"$groups/$(basename "$directory")/cgroup.procs"
    # Whoever ends this process ends process 1 inside, and with it all that it started.
    exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts "$0" "$base" "$directory" inside
fi

mount --make-rprivate /
mount -t tmpfs written "$directory/written"
mkdir "$directory/written/upper" "$directory/written/work" "$directory/written/root"
root=$directory/written/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=$directory/written/upper,workdir=$directory/written/work" "$root"
cd "$root"
mount --bind "$directory" mnt
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs dev dev
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs run run
mkdir -p run/lock run/udev
# Before udevd runs, process 1 takes this for the sign that it will: without, it hears of no devices.
touch run/udev/control
echo node-1 >etc/hostname
exec env -i container=portguard PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --log-target=console --log-level=info --show-status=no
