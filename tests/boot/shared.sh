# For scripts that boot a systemd: what they have in common. Sourced, with the script's own arguments.

# Starts the script anew in mounts, processes and a cgroup of its own, with the last argument `inside`.
enter() {
    groups=/sys/fs/cgroup/unified
    [ -d "$groups" ] || groups=/sys/fs/cgroup
    name=$(basename "$1")
    shift
    mkdir -p "$groups/$name"
    echo $$ >"$groups/$name/cgroup.procs"
    # Whoever ends this process ends process 1 inside, and with it all that it started.
    exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts "$@" inside
}

# The kernel's file systems, in the root that is the current directory.
mount_kernel() {
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
    mount -t tmpfs run run
    mkdir -p run/lock run/udev
    # Before udevd runs, process 1 takes this for the sign that it will: without, it hears of no devices.
    touch run/udev/control
}
