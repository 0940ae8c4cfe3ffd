//! The root of cgroup v2, where socket programs hang.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::machine;

/// Opens it; says what is in the way.
pub(crate) fn root() -> Result<File, String> {
    let mounts = machine::mounts()
        .map_err(|error| format!("`/proc/thread-self/mountinfo` cannot be read: {error}"))?;
    let path = find(&mounts).ok_or_else(|| "cgroup v2 is not mounted".to_owned())?;
    let path = path.display();
    let root = File::open(path.to_string())
        .map_err(|error| format!("`{path}` cannot be opened: {error}"))?;
    match root.metadata().map(|found| found.ino()) {
        Ok(ROOT) => Ok(root),
        _ => Err(format!(
            "`{path}` is not the root of cgroup v2, but that of a namespace (a container, or `unshare -C`)"
        )),
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
