//! Files below a directory that others can write to: reached step by step, and never through a symbolic link.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A directory; it may itself be a link, which is the operator's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beneath<'a>(pub(super) &'a Path);

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

impl Beneath<'_> {
    /// What a file holds. A pipe, a device or a link is no file, nor is what is longer than `most`.
    pub(super) fn read(self, key: &str, most: u64) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(key, false)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(parent, name, flags, Mode::empty())?);
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a regular file, or too large: remove it",
            ));
        }
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a file, whole or not at all; directories on the way are made.
    pub(super) fn write(self, key: &str, beside: &str, bytes: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(key, true)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let mut file = File::from(openat(&parent, beside, flags, mode)?);
        let result = (|| {
            file.write_all(bytes)?;
            file.sync_all()?;
            renameat(&parent, beside, &parent, name)?;
            File::from(parent.try_clone()?).sync_all()
        })();
        if result.is_err() {
            let _ = unlinkat(&parent, beside, UnlinkatFlags::NoRemoveDir);
        }
        result
    }

    /// Removes a file, or a link in its place.
    pub(super) fn remove(self, key: &str) -> io::Result<()> {
        let (parent, name) = self.parent(key, false)?;
        Ok(unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The directory that a key's file is in, and its name there.
    fn parent(self, key: &str, make: bool) -> io::Result<(OwnedFd, &str)> {
        let mut at = open(self.0, DIRECTORY, Mode::empty())?;
        let (directories, name) = match key.rsplit_once('/') {
            Some((directories, name)) => (Some(directories), name),
            None => (None, key),
        };
        for directory in directories.into_iter().flat_map(|all| all.split('/')) {
            let enter =
                |at: &OwnedFd| openat(at, directory, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
            at = match enter(&at) {
                Err(Errno::ENOENT) if make => {
                    match mkdirat(&at, directory, Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    enter(&at)?
                }
                other => other?,
            };
        }
        Ok((at, name))
    }
}
