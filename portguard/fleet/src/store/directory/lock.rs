//! Who commits alone: a lock that is taken with link(2), which is atomic on NFS, too.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use super::beneath::Beneath;
use super::failed;
use crate::now;
use crate::store::StoreError;

/// How long to wait for another one's lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// A lock that is older was left by somebody who died; no commit takes a tenth of that.
const STALE_SECONDS: u64 = 60;
/// What a lock says is shorter.
const LONGEST: u64 = 256;

/// Held by whoever commits.
pub(super) struct Lock {
    path: PathBuf,
}

impl Lock {
    pub(super) fn take(root: &Path, me: &str) -> Result<Self, StoreError> {
        let path = root.join(".lock");
        let mine = root.join(format!(".lock-{me}-{:016x}", fastrand::u64(..)));
        let result = Self::wait(root, &path, &mine, me);
        let _ = fs::remove_file(&mine);
        result?;
        Ok(Self { path })
    }

    fn wait(root: &Path, path: &Path, mine: &Path, me: &str) -> Result<(), StoreError> {
        let write = || {
            let mut file = fs::File::create(mine)?;
            file.write_all(format!("{me} {}\n", now()).as_bytes())?;
            // Before it is the lock: a machine that dies leaves none that says nothing.
            file.sync_all()
        };
        write().map_err(|error| failed(mine, &error))?;
        let begun = std::time::Instant::now();
        loop {
            match fs::hard_link(mine, path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Self::remove_if_stale(root, path);
                }
                Err(error) => return Err(failed(path, &error)),
            }
            if begun.elapsed() > PATIENCE {
                return Err(StoreError::Unreachable(format!(
                    "{} is held by somebody else: remove it if nobody writes to the store now",
                    path.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(5 + fastrand::u64(..20)));
        }
    }

    /// Two who find the same stale lock rename it one after the other: the second finds none, or takes a fresh one away
    /// and must put it back, which link(2) refuses if yet another is there by then.
    fn remove_if_stale(root: &Path, path: &Path) {
        let since = |path: &Path| -> Option<u64> {
            let name = path.file_name()?.to_str()?;
            let bytes = Beneath(root).read(name, LONGEST).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        };
        // What says no time, or one that is yet to come, is as old as its file is.
        let made = |path: &Path| -> Option<u64> {
            let made = fs::symlink_metadata(path).ok()?.modified().ok()?;
            let made = made.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(made.as_secs())
        };
        let is_old = |at: u64| now().abs_diff(at) > STALE_SECONDS;
        let is_stale = |path: &Path| match since(path) {
            Some(at) if at <= now() + STALE_SECONDS => is_old(at),
            _ => made(path).is_some_and(is_old),
        };
        if !is_stale(path) {
            return;
        }
        let aside = path.with_extension(format!("stale-{:016x}", fastrand::u64(..)));
        if fs::rename(path, &aside).is_ok() {
            if !is_stale(&aside) {
                let _ = fs::hard_link(&aside, path);
            }
            let _ = fs::remove_file(&aside);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
