//! Where a guard's pins are, and the lock that serialises tools.
//!
//! ```text
//! /sys/fs/bpf/portguard/v1/eth0/          one directory an interface ("." is written "%2e"; a network
//!     shared/CELLS ...                     namespace that is not the first is added as "@COOKIE-INODE")
//!     link_in, link_out                    the attachments: what these links run is in force
//!     link_returning                       there while an interface that went and came back is guarded again
//!     gen-7/in, gen-7/out, gen-7/meta ...  a generation: its programs, and what it is made of
//!     swapping/                            there while a tool replaces first one and then the other attachment
//! ```
//!
//! No file says which generation is live: the link does, by the program that it runs. A tool that was killed anywhere
//! leaves directories that no link refers to, and the next one removes them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use portguard_common::abi::ABI_VERSION;
use portguard_common::reason::Direction;

use crate::error::{Context as _, Error, Kind};
use crate::notice;
use crate::pins::identity::Namespace;
use crate::pins::mounts::{MOUNT, mount_if_missing};

pub use crate::pins::mounts::is_mounted;

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
        let name = match Namespace::own() {
            Some(own) => format!("{name}@{own}"),
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
        let is_here = self.is_of(Namespace::own());
        let name = name.split_once('@').map_or(name.as_ref(), |(name, _)| name);
        let name = name
            .replace("%40", "@")
            .replace("%2e", ".")
            .replace("%25", "%");
        (name, is_here)
    }

    /// Whether it is of this network namespace.
    fn is_of(&self, own: Option<Namespace>) -> bool {
        match (self.namespace(), own) {
            (Some(namespace), Some(own)) => namespace.is(own),
            (None, None) => {
                let name = self.directory.file_name().unwrap_or_default();
                !name.as_encoded_bytes().contains(&b'@')
            }
            _ => false,
        }
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
            .filter(|root| root != own && is_version(root))
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

    /// The pin of an ingress attachment that takes the place of one whose interface went, until the guard is whole.
    pub fn returning(&self) -> PathBuf {
        self.directory.join("link_returning")
    }

    /// A generation's directory.
    pub fn generation(&self, number: u64) -> PathBuf {
        self.directory.join(format!("gen-{number}"))
    }

    /// The mark of a tool that is between the swap of one attachment and that of the other.
    pub fn swapping(&self) -> PathBuf {
        self.directory.join("swapping")
    }

    /// The network namespace that the interface is of, if it is not the machine's first.
    pub fn namespace(&self) -> Option<Namespace> {
        let name = self.directory.file_name()?.to_str()?;
        name.split_once('@')?.1.parse().ok()
    }

    /// The ABI version whose root it is under, as the directory is called.
    pub fn version(&self) -> String {
        let root = self.directory.parent().and_then(Path::file_name);
        root.unwrap_or_default().to_string_lossy().into_owned()
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

fn is_version(root: &Path) -> bool {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix('v')
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Sees that this process may look at the pins, and that nobody else has made them: without, a guarded host would look
/// unguarded, or somebody else's pins like a guard.
///
/// # Errors
/// [`Error`] if it may not, or if they are not to be trusted.
pub(crate) fn check_readable() -> Result<(), Error> {
    match fs::read_dir(root()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Error::new(
            Kind::NotPermitted,
            format!("permission denied: `{MOUNT}`"),
        )
        .hint("run as root: `sudo portguard ...`")),
        _ => check_owners(),
    }
}

/// Sees that the directories that hold the pins belong to root or to this process's user, who alone may write to them: on a
/// BPF file system that is everybody's to write to, anybody may have made them.
fn check_owners() -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    let own = nix::unistd::geteuid().as_raw();
    let top = Path::new(MOUNT).join("portguard");
    for directory in [root(), top.join("locks"), top] {
        let Ok(there) = fs::symlink_metadata(&directory) else {
            continue;
        };
        let is_ours = there.uid() == 0 || there.uid() == own;
        if !is_ours || there.mode() & 0o022 != 0 || !there.is_dir() {
            return Err(Error::new(Kind::Untrusted, format!(
                "`{}` cannot be trusted: it belongs to user {}, has mode {:04o}, and users other than root may change it",
                directory.display(),
                there.uid(),
                there.mode() & 0o7777
            ))
            .hint(format!(
                "find out who made it; remove it as root, and see that `{MOUNT}` is writable for root only: \
                 `chmod 0700 {MOUNT}`"
            )));
        }
    }
    Ok(())
}

/// The layouts of all interfaces that have one, of all ABI versions.
pub(crate) fn layouts_of_all_versions() -> Vec<Layout> {
    entries(&Path::new(MOUNT).join("portguard"))
        .into_iter()
        .filter(|root| is_version(root))
        .flat_map(|root| entries(&root))
        .map(|directory| Layout { directory })
        .collect()
}

/// The layouts of all interfaces that have one, by name.
pub fn layouts() -> Vec<Layout> {
    entries(&root())
        .into_iter()
        .map(|directory| Layout { directory })
        .collect()
}

/// Those of this process's network namespace, which is asked for once, however many others there are.
pub fn layouts_here() -> Vec<Layout> {
    let own = Namespace::own();
    let mut here = layouts();
    here.retain(|layout| layout.is_of(own));
    here
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

/// Where the lock of this process's network namespace is: guards of other namespaces are no business of ours. It is the
/// same for all versions, and on the file system of the pins: whoever sees one sees the other.
fn lock_path() -> PathBuf {
    let name = Namespace::own().map_or_else(|| "host".to_owned(), |own| format!("@{own}"));
    Path::new(MOUNT).join("portguard/locks").join(name)
}

/// Locks of other network namespaces: whose, and where.
pub(crate) fn foreign_locks() -> Vec<(Namespace, PathBuf)> {
    let own = lock_path();
    entries(own.parent().unwrap_or(&own))
        .into_iter()
        .filter(|path| *path != own)
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some((name.strip_prefix('@')?.parse().ok()?, path))
        })
        .collect()
}

/// How long to wait for another tool.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often to try meanwhile: a file lock tells nobody that it is free.
const AGAIN: Duration = Duration::from_millis(20);

/// Held while pins change; released when dropped.
#[derive(Debug)]
pub struct Lock {
    /// The lock is the open file's.
    directory: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing is left of a namespace that ends. Who waits for it finds out, see `is_still_there`.
        if self.is_still_there() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

impl Lock {
    /// Whether others that look for the lock find this one.
    fn is_still_there(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        match (self.directory.metadata(), fs::metadata(&self.path)) {
            (Ok(own), Ok(there)) => own.ino() == there.ino(),
            _ => false,
        }
    }
}

/// Sees that bpffs is mounted, makes the root directory, and waits for the lock of this network namespace.
///
/// # Errors
/// If there is no bpffs and none can be mounted, no privilege to write to it, or another tool that does not end.
pub(super) fn lock() -> crate::Result<Lock> {
    mount_if_missing()?;
    let path = lock_path();
    make(&root())?;
    check_owners()?;
    let begun = Instant::now();
    let mut is_said = false;
    loop {
        make(&path)?;
        let directory = match File::open(&path) {
            // Whoever had it has removed it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.with_context(|| format!("cannot open `{}`", path.display()))?,
        };
        match directory.try_lock() {
            Ok(()) => {
                let path = path.clone();
                let lock = Lock { directory, path };
                if lock.is_still_there() {
                    return Ok(lock);
                }
                continue;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
            }
            Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "another portguard{} is running and does not end",
                        owner(&directory)
                    ),
                )
                .hint("end it: the next one repairs what it leaves half done"));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !is_said {
            let owner = owner(&directory);
            notice::say(&format!("waiting for another portguard{owner} to finish"));
            is_said = true;
        }
        thread::sleep(AGAIN);
    }
}

fn make(directory: &Path) -> crate::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let made = builder.create(directory);
    made.map_err(|error| cannot_write(error, directory))
}

/// Says what it means that nothing can be written to bpffs.
pub(crate) fn cannot_write(error: io::Error, path: &Path) -> Error {
    let fault = Error::new(Kind::System, format!("cannot make `{}`", path.display()));
    let fault = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::ENOMEM) => {
            fault.hint("the BPF file system or the kernel's memory is full: `portguard doctor`")
        }
        Some(libc::EPERM | libc::EACCES) => fault.hint("run as root: `sudo portguard ...`"),
        Some(libc::EROFS) => fault.hint("the BPF file system is mounted read-only: remount it"),
        _ => fault,
    };
    fault.caused_by(error)
}

/// Who holds the lock, as far as the kernel tells: ` (process 42)`.
fn owner(file: &File) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let inode = file.metadata().map_or(0, |found| found.ino()).to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks
        .lines()
        .filter(|line| line.contains("FLOCK"))
        .find_map(|line| {
            let words: Vec<&str> = line
                .split_whitespace()
                .filter(|word| *word != "->")
                .collect();
            let place = words.get(5)?;
            (place.rsplit(':').next() == Some(&inode)).then(|| words.get(4).copied())?
        })
        .map_or_else(String::new, |process| format!(" (process {process})"))
}
