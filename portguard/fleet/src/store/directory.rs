//! A directory: on one machine, in a checkout of git, or on NFS.
//!
//! A value is a file; it is written beside its place, synced, and renamed. Commits are serialised by a lock that is taken
//! with link(2), which is atomic on NFS, too. A commit of several values that is cut short leaves the first of them.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Compare, Entry, MAX_VALUE, Op, PAGE, Poll, Source, Store, StoreError, Watch, check};
use crate::{Hash, now};

/// How often a watch looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long to wait for another one's lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// A lock that is older was left by somebody who died; no commit takes a tenth of that.
const STALE_SECONDS: u64 = 60;
/// Begins a value that goes away by itself.
const LEASE: &[u8] = b"lease ";

/// A store in a directory. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<PathBuf>,
    /// What makes a lease ours.
    me: Arc<str>,
    every: Duration,
}

impl Directory {
    /// A store there; the directory is made when something is written.
    pub fn new(root: &Path) -> Self {
        Self {
            root: Arc::new(root.to_owned()),
            me: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)).into(),
            every: EVERY,
        }
    }

    /// Looks so often.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn read(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check(key, &[])?;
        let path = self.path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A store that is not there is not an empty one.
                self.root
                    .metadata()
                    .map_err(|error| failed(&self.root, &error))?;
                return Ok(None);
            }
            Err(error) => return Err(failed(&path, &error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_VALUE as u64 + 256)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&path, &error))?;
        let version = version(&bytes);
        let value = match Leased::parse(&bytes) {
            Some(leased) if leased.until <= now() => return Ok(None),
            Some(leased) => leased.value.to_vec(),
            None => bytes,
        };
        check(key, &value)?;
        Ok(Some(Entry {
            key: key.to_owned(),
            value,
            version,
        }))
    }

    fn write(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let next = parent.join(format!(".{}-{number}", self.me));
        let result = (|| {
            fs::create_dir_all(&parent)?;
            let mut file = File::create(&next)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(&parent)?.sync_all()
        })();
        if result.is_err() {
            let _ = fs::remove_file(&next);
        }
        result.map_err(|error| failed(&path, &error))
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, &error)),
            _ => Ok(()),
        }
    }

    fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
        Ok(match compare {
            Compare::Absent(key) => self.read(key)?.is_none(),
            Compare::Version(key, version) => self
                .read(key)?
                .is_some_and(|entry| entry.version == *version),
        })
    }

    fn commit_now(&self, compares: &[Compare], ops: &[Op]) -> Result<bool, StoreError> {
        for op in ops {
            match op {
                Op::Put(key, value) => check(key, value)?,
                Op::Delete(key) => check(key, &[])?,
            }
        }
        // Who writes one value, whatever is there, renames a file: that needs no lock, and a thousand hosts wait for none.
        let _lock = if compares.is_empty() && ops.len() == 1 {
            None
        } else {
            Some(Lock::take(&self.root, &self.me)?)
        };
        for compare in compares {
            if !self.holds(compare)? {
                return Ok(false);
            }
        }
        for op in ops {
            match op {
                Op::Put(key, value) => self.write(key, value)?,
                Op::Delete(key) => self.remove(key)?,
            }
        }
        Ok(true)
    }

    fn lease_now(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> Result<bool, StoreError> {
        check(key, value)?;
        let until = now().saturating_add(seconds);
        let mut bytes = format!("lease {until} {}\n", self.me).into_bytes();
        bytes.extend_from_slice(value);
        if !only_if_mine {
            self.write(key, &bytes)?;
            return Ok(true);
        }
        let _lock = Lock::take(&self.root, &self.me)?;
        let there = fs::read(self.path(key)).unwrap_or_default();
        let is_taken = Leased::parse(&there)
            .is_some_and(|leased| leased.until > now() && leased.by != self.me.as_bytes());
        if is_taken {
            return Ok(false);
        }
        self.write(key, &bytes)?;
        Ok(true)
    }

    fn page_now(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let mut keys = Vec::new();
        let start = self.root.join(prefix.trim_end_matches('/'));
        collect(&self.root, &start, &mut keys)?;
        keys.retain(|key| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        keys.sort_unstable();
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        let mut entries = Vec::new();
        for key in &keys {
            // What was removed meanwhile is not there.
            entries.extend(self.read(key)?);
        }
        if entries.is_empty() && more {
            // A page of nothing but ended leases must not look like the end.
            return self.page_now(prefix, keys.last().map(String::as_str));
        }
        Ok((entries, more))
    }

    /// Runs what waits for a disk where it holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || job(&store))
            .await
            .map_err(|error| StoreError::Unreachable(error.to_string()))?
    }
}

impl Store for Directory {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.blocking(move |store| store.read(&key)).await
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |store| store.page_now(&prefix, after.as_deref()))
            .await
    }

    async fn commit(&self, compares: &[Compare], ops: &[Op]) -> Result<bool, StoreError> {
        let (compares, ops) = (compares.to_vec(), ops.to_vec());
        self.blocking(move |store| store.commit_now(&compares, &ops))
            .await
    }

    async fn lease(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> Result<bool, StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.blocking(move |store| store.lease_now(&key, &value, seconds, only_if_mine))
            .await
    }

    async fn release(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking(move |store| store.remove(&key)).await
    }

    async fn watch(&self, keys: &[String]) -> Result<Watch, StoreError> {
        Ok(Watch::Poll(Poll {
            source: Source::Directory(self.clone()),
            keys: keys.to_vec(),
            every: self.every,
            last: None,
        }))
    }

    async fn reconnect(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Leased<'a> {
    until: u64,
    by: &'a [u8],
    value: &'a [u8],
}

impl<'a> Leased<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(LEASE)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (head, value) = rest.split_at_checked(end)?;
        let space = head.iter().position(|byte| *byte == b' ')?;
        let (until, by) = head.split_at_checked(space)?;
        Some(Self {
            until: std::str::from_utf8(until).ok()?.parse().ok()?,
            by: by.get(1..)?,
            value: value.get(1..)?,
        })
    }
}

/// Values with the same bytes are the same version: a commit that compares asks whether what it saw is what is there.
fn version(bytes: &[u8]) -> u64 {
    let hash = Hash::of(bytes);
    let first = hash.as_str().get(..16).unwrap_or_default();
    u64::from_str_radix(first, 16).unwrap_or_default()
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    let what = format!("{}: {error}", path.display());
    let refusals = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    if refusals.contains(&error.kind()) {
        StoreError::Refused(what)
    } else {
        StoreError::Unreachable(what)
    }
}

/// Keys of all files below; what begins with a dot is nobody's value.
fn collect(root: &Path, below: &Path, keys: &mut Vec<String>) -> Result<(), StoreError> {
    let entries = match fs::read_dir(below) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(below, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed(below, &error))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(root, &path, keys)?;
        } else if let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str)
            && crate::layout::is_key(key)
        {
            keys.push(key.to_owned());
        }
    }
    Ok(())
}

/// Held by whoever commits.
struct Lock {
    path: PathBuf,
}

impl Lock {
    fn take(root: &Path, me: &str) -> Result<Self, StoreError> {
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
                    Self::remove_if_stale(path);
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
    fn remove_if_stale(path: &Path) {
        let since = |path: &Path| -> Option<u64> {
            let text = fs::read_to_string(path).ok()?;
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
