//! Whether pins go where they last.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::error::{Error, Kind};

/// Where the kernel's BPF file system belongs.
pub(crate) const MOUNT: &str = "/sys/fs/bpf";

/// Inodes that the machine's first mount namespace has: a fixed one since Linux 6.18, the first that was given out before.
const FIRST: [u64; 4] = [0xefff_fff8, 0xf000_0000, 0xf000_0001, 0xf000_0002];

/// Whether the kernel's BPF file system is where pins go.
pub fn is_mounted() -> bool {
    statfs(MOUNT).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Sees that the BPF file system is there, and that it is everybody's.
///
/// # Errors
/// [`Error`] if it cannot be mounted, or if what would be mounted is seen by this process only: the guard would end with it.
pub(crate) fn mount_if_missing() -> crate::Result<()> {
    if is_mounted() {
        // Whoever mounted one for this process alone meant it.
        return Ok(());
    }
    if is_private() {
        return Err(private());
    }
    mount(
        Some("bpf"),
        MOUNT,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .map_err(|errno| {
        Error::new(
            Kind::NotMounted,
            format!("the BPF file system is not mounted at `{MOUNT}`"),
        )
        .hint(format!("as root: `mount -t bpf bpf {MOUNT}`"))
        .caused_by(errno)
    })
}

fn private() -> Error {
    Error::new(Kind::NotMounted, format!(
        "this process has mounts of its own, without the BPF file system at `{MOUNT}`: a guard pinned in one that is mounted \
         now would end with them, unseen by others"
    ))
    .hint(format!(
        "mount it for all, as root: `nsenter --target 1 --mount mount -t bpf bpf {MOUNT}`, and start this again (the agent: \
         `systemctl restart portguard-agent`). Where `ip netns exec NAME` made these mounts: `nsenter --net=/run/netns/NAME \
         portguard ...` enters the network namespace only"
    ))
}

/// Whether this process sees other mounts than process 1, the machine's or the container's first.
pub(super) fn is_private() -> bool {
    let Ok(own) = fs::metadata("/proc/thread-self/ns/mnt") else {
        return false;
    };
    match fs::metadata("/proc/1/ns/mnt") {
        Ok(first) => first.ino() != own.ino(),
        // Looking at process 1 takes CAP_SYS_PTRACE.
        Err(_) => !FIRST.contains(&own.ino()),
    }
}
