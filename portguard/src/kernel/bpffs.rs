//! Where a guard's pins are, and the lock that serialises tools.
//!
//! ```text
//! /sys/fs/bpf/portguard/v1/eth0/          one directory an interface ("." is written "%2e", a foreign
//!     shared/CELLS ...                     network namespace is added as "@INODE")
//!     link_in, link_out                    the attachments: what these links run is in force
//!     gen-7/in, gen-7/out, gen-7/meta ...  a generation: its programs, and what it is made of
//! ```
//!
//! No file says which generation is live: the link does, by the program that it runs. A tool that was killed anywhere
//! leaves directories that no link refers to, and the next one removes them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use portguard_common::abi::ABI_VERSION;
use portguard_common::reason::Direction;

use crate::error::Fault;

const MOUNT: &str = "/sys/fs/bpf";

/// Directory of all guards of this ABI version.
pub fn root() -> PathBuf {
    Path::new(MOUNT)
        .join("portguard")
        .join(format!("v{ABI_VERSION}"))
}

/// The pins of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its directory.
    pub directory: PathBuf,
}

impl Layout {
    /// The layout of an interface of this process's network namespace.
    pub fn of(interface: &str) -> Self {
        let name = interface
            .replace('%', "%25")
            .replace('.', "%2e")
            .replace('@', "%40");
        let name = match foreign_namespace() {
            Some(inode) => format!("{name}@{inode}"),
            None => name,
        };
        Self {
            directory: root().join(name),
        }
    }

    /// The interface's name, and whether it is of this process's network namespace.
    pub fn interface(&self) -> (String, bool) {
        let name = self
            .directory
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let (name, inode) = match name.split_once('@') {
            Some((name, inode)) => (name, inode.parse::<u64>().ok()),
            None => (name.as_ref(), None),
        };
        let name = name
            .replace("%40", "@")
            .replace("%2e", ".")
            .replace("%25", "%");
        (name, inode == foreign_namespace())
    }

    /// The same interface's layouts under the roots of other ABI versions.
    pub fn of_other_versions(&self) -> Vec<Self> {
        let (Some(own), Some(name)) = (self.directory.parent(), self.directory.file_name()) else {
            return Vec::new();
        };
        let Some(top) = own.parent() else {
            return Vec::new();
        };
        entries(top)
            .into_iter()
            .filter(|root| root != own)
            .map(|root| Self {
                directory: root.join(name),
            })
            .filter(|layout| layout.directory.exists())
            .collect()
    }

    /// Maps that outlive generations.
    pub fn shared(&self) -> PathBuf {
        self.directory.join("shared")
    }

    /// The pin of an attachment.
    pub fn link(&self, direction: Direction) -> PathBuf {
        self.directory.join(format!("link_{}", direction.name()))
    }

    /// A generation's directory.
    pub fn generation(&self, number: u64) -> PathBuf {
        self.directory.join(format!("gen-{number}"))
    }

    /// Numbers of the generations that have a directory, ascending.
    pub fn generations(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = entries(&self.directory)
            .iter()
            .filter_map(|path| {
                path.file_name()?
                    .to_str()?
                    .strip_prefix("gen-")?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Sees that this process may look at the pins: without, a guarded host would look unguarded.
///
/// # Errors
/// [`Fault`] if it may not.
pub fn check_readable() -> Result<(), Fault> {
    match fs::read_dir(root()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Fault::system(
            format!("this process may not look into `{MOUNT}`"),
        )
        .hint("run as root: `sudo portguard ...`")),
        _ => Ok(()),
    }
}

/// The layouts of all interfaces that have one, by name.
pub fn layouts() -> Vec<Layout> {
    entries(&root())
        .into_iter()
        .map(|directory| Layout { directory })
        .collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Removes a directory of pins, whatever is in it; nothing there is fine.
///
/// # Errors
/// What the file system says.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The inode of this process's network namespace, if it is not that of process 1.
fn foreign_namespace() -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let own = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    let is_foreign = match fs::metadata("/proc/1/ns/net") {
        Ok(first) => first.ino() != own,
        // Looking at process 1 takes CAP_SYS_PTRACE. This switch is shown in the first namespace only.
        Err(_) => !Path::new("/proc/sys/net/core/bpf_jit_enable").exists(),
    };
    is_foreign.then_some(own)
}

/// Held while pins change; released when dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file")] File);

/// Sees that bpffs is mounted, makes the root directory, and waits for the lock.
///
/// # Errors
/// If there is no bpffs and none can be mounted, or no privilege to write to it.
pub fn lock() -> anyhow::Result<Lock> {
    mount_if_missing()?;
    let root = root();
    fs::create_dir_all(&root).map_err(|error| {
        let fault = Fault::system(format!("cannot make `{}`", root.display()));
        anyhow::Error::new(error).context(if nix::unistd::geteuid().is_root() {
            fault
        } else {
            fault.hint("run as root: `sudo portguard ...`")
        })
    })?;
    let directory =
        File::open(&root).with_context(|| format!("cannot open `{}`", root.display()))?;
    if let Err(TryLockError::WouldBlock) = directory.try_lock() {
        let _ = writeln!(
            io::stderr().lock(),
            "waiting for another portguard to finish"
        );
    }
    directory
        .lock()
        .with_context(|| format!("cannot lock `{}`", root.display()))?;
    Ok(Lock(directory))
}

/// Whether the kernel's BPF file system is where pins go.
pub fn is_mounted() -> bool {
    statfs(MOUNT).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_if_missing() -> anyhow::Result<()> {
    if is_mounted() {
        return Ok(());
    }
    mount(
        Some("bpf"),
        MOUNT,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .map_err(|errno| {
        anyhow::Error::new(errno).context(
            Fault::system(format!("the BPF file system is not mounted at `{MOUNT}`"))
                .hint(format!("as root: `mount -t bpf bpf {MOUNT}`")),
        )
    })
}
