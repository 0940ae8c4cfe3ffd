//! Who commits alone: a lock that is taken with link(2), which is atomic on NFS, too.

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
            fs::create_dir_all(root)?;
            fs::write(mine, format!("{me} {}\n", now()))
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
                    "{} is held by somebody else",
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
        let is_stale = |since: u64| now().saturating_sub(since) > STALE_SECONDS;
        if !since(path).is_some_and(is_stale) {
            return;
        }
        let aside = path.with_extension(format!("stale-{:016x}", fastrand::u64(..)));
        if fs::rename(path, &aside).is_ok() {
            if !since(&aside).is_some_and(is_stale) {
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
