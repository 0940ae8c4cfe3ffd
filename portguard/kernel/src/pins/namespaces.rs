//! The other network namespaces of this machine, as far as they can be seen.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::pins::identity::Namespace;

/// Where tools keep names of network namespaces: iproute2, Docker.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Whether this host passes packets on.
pub fn is_forwarding() -> bool {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .iter()
        .any(|key| {
            fs::read_to_string(format!("/proc/sys/net/{key}")).is_ok_and(|text| text.trim() != "0")
        })
}

/// Whether anybody is in, holds, or has a name for, a network namespace; `None` = cannot be told, since some process does not
/// let itself be looked at.
pub fn is_alive(namespace: Namespace) -> Option<bool> {
    let wanted = namespace.inode;
    // The kernel gave the inode to the namespace that this process is in: the other one has ended.
    if inode(Path::new("/proc/thread-self/ns/net")) == Some(wanted) {
        return Some(Namespace::own().is_some_and(|own| own.is(namespace)));
    }
    for directory in NAMED {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if inode(&entry.path()) == Some(wanted) {
                return Some(true);
            }
        }
    }
    // Every namespace has a `net/dev` with a number of its own, which everybody may ask for: by it, who does not let itself be
    // looked at is found where others are that do.
    let table = |process: &Path| inode(&process.join("net/dev"));
    let mut known: BTreeSet<u64> = table(Path::new("/proc/thread-self")).into_iter().collect();
    let mut closed = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let is_process = entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        if !is_process {
            continue;
        }
        let process = entry.path();
        match fs::metadata(process.join("ns/net")) {
            Ok(there) if there.ino() == wanted => return Some(true),
            Ok(_) if holds(&process, wanted) => return Some(true),
            Ok(_) => known.extend(table(&process)),
            // It ended meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => closed.extend(table(&process)),
        }
    }
    closed
        .iter()
        .all(|table| known.contains(table))
        .then_some(false)
}

/// Whether a process holds a network namespace without being in it: by another thread, or by an open file.
fn holds(process: &Path, namespace: u64) -> bool {
    let entries = |name: &str| {
        fs::read_dir(process.join(name))
            .into_iter()
            .flatten()
            .flatten()
    };
    let link = format!("net:[{namespace}]");
    entries("task").any(|thread| inode(&thread.path().join("ns/net")) == Some(namespace))
        || entries("fd")
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|file| file.as_os_str() == link.as_str())
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_alive_and_a_made_up_one_is_not() {
        let namespace = |cookie, inode| Namespace { cookie, inode };
        let parent = inode(Path::new("/proc/self/ns/net")).expect("an inode");
        std::thread::spawn(move || {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let own = Namespace::own().expect("not the first");
            assert_eq!(is_alive(own), Some(true));
            assert_eq!(is_alive(namespace(own.cookie + 1, own.inode)), Some(false));
            assert_eq!(is_alive(namespace(1, parent)), Some(true));
        })
        .join()
        .expect("no panic");
        assert_ne!(is_alive(namespace(1, 1)), Some(true));
        if nix::unistd::geteuid().is_root() {
            // Though there may be processes that not even root may look at.
            assert_eq!(is_alive(namespace(1, 1)), Some(false));
        }
    }
}
