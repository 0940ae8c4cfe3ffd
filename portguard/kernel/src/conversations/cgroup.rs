//! The root of cgroup v2, where socket programs hang.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::machine;

/// What is in the way of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Barred {
    /// Nobody can say.
    Unread(String),
    /// There is none.
    NotMounted,
    /// Where it should be.
    Closed(String, String),
    /// What is mounted there is a part of the tree.
    Namespace(String),
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(why) => write!(f, "`/proc/thread-self/mountinfo` cannot be read: {why}"),
            Self::NotMounted => f.write_str("cgroup v2 is not mounted"),
            Self::Closed(path, why) => write!(f, "`{path}` cannot be opened: {why}"),
            Self::Namespace(path) => {
                write!(f, "`{path}` is of a cgroup namespace")
            }
        }
    }
}

impl Barred {
    /// What to do about it.
    pub(crate) const fn todo(&self) -> &'static str {
        match self {
            Self::Namespace(_) => {
                "load from the machine itself, or in a container that has the machine's cgroups (`--cgroupns=host`); else set a \
                 longer `tcp_idle` in `[timeouts]` where connections are quiet for hours"
            }
            Self::Unread(_) | Self::NotMounted | Self::Closed(..) => {
                "mount it (`mount -t cgroup2 cgroup2 /sys/fs/cgroup`, or boot with `systemd.unified_cgroup_hierarchy=1`), then \
                 load again"
            }
        }
    }
}

/// Opens it.
pub(crate) fn root() -> Result<File, Barred> {
    let mounts = machine::mounts().map_err(|error| Barred::Unread(error.to_string()))?;
    let path = find(&mounts).ok_or(Barred::NotMounted)?;
    let path = path.display().to_string();
    let root =
        File::open(&path).map_err(|error| Barred::Closed(path.clone(), error.to_string()))?;
    match root.metadata().map(|found| found.ino()) {
        Ok(ROOT) => Ok(root),
        _ => Err(Barred::Namespace(path)),
    }
}

/// The inode of the root of cgroup v2, which no other group has.
const ROOT: u64 = 1;

/// The mount point of cgroup v2, by a table of mounts: the one that shows most of the tree.
fn find(mounts: &str) -> Option<PathBuf> {
    let found = mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut words = place.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let is_unified = kind.split(' ').next() == Some("cgroup2");
        is_unified.then(|| (root.len(), PathBuf::from(unescaped(point))))
    });
    Some(found.min_by_key(|(length, _)| *length)?.1)
}

/// What the kernel writes as `\040` in such tables.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_among_other_mounts() {
        let hybrid = "29 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
                      30 29 0:27 /a /mnt/part rw shared:10 - cgroup2 cgroup2 rw\n\
                      31 29 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
                      32 29 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let path = |text: &str| find(text).map(|path| path.display().to_string());
        assert_eq!(path(hybrid).as_deref(), Some("/sys/fs/cgroup/unified"));
        let odd = "31 29 0:27 / /mnt/a\\040b rw - cgroup2 none rw\n";
        assert_eq!(path(odd).as_deref(), Some("/mnt/a b"));
        assert_eq!(
            path("32 29 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"),
            None
        );
    }
}
