//! A directory: on one machine, in a checkout of git, or on NFS.
//!
//! A value is a file; it is written beside its place, synced, and renamed. Commits are serialised by a lock. A commit of
//! several values that is cut short leaves the first of them. Whoever else can write to the directory may have put anything
//! there: links are not followed, and what is no file is not opened to wait on.

mod beneath;
mod lock;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beneath::Beneath;
use lock::Lock;

use super::{Compare, Entry, MAX_VALUE, Op, PAGE, Poll, Source, Store, StoreError, Watch, check};
use crate::{Hash, now};

/// How often a watch looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a disk may take, another one's lock included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Begins a value that goes away by itself.
const LEASE: &[u8] = b"lease ";
/// What such a value has before it is shorter.
const HEAD: u64 = 256;

/// A store in a directory. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<PathBuf>,
    /// What makes a lease ours.
    me: Arc<str>,
    every: Duration,
}

impl Directory {
    /// A store in a directory that is there: what is not, as where nothing is mounted yet, is never made.
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

    /// A store that is not there is not an empty one.
    fn is_there(&self) -> Result<(), StoreError> {
        let found = self.root.metadata();
        found.map_err(|error| failed(&self.root, &error))?;
        Ok(())
    }

    /// The file's bytes, a lease's head among them; `None` if there is none.
    fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check(key, &[])?;
        match Beneath(&self.root).read(key, MAX_VALUE as u64 + HEAD) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.is_there()?;
                Ok(None)
            }
            Err(error) => Err(failed(&self.path(key), &error)),
        }
    }

    fn read(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = format!(".{}-{number}", self.me);
        Beneath(&self.root)
            .write(key, &beside, bytes)
            .map_err(|error| failed(&self.path(key), &error))
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        match Beneath(&self.root).remove(key) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&self.path(key), &error))
            }
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
        let there = self.bytes(key)?.unwrap_or_default();
        let is_taken = Leased::parse(&there)
            .is_some_and(|leased| leased.until > now() && leased.by != self.me.as_bytes());
        if is_taken {
            return Ok(false);
        }
        self.write(key, &bytes)?;
        Ok(true)
    }

    /// The keys that begin like this, sorted.
    fn keys(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let start = self.root.join(prefix.trim_end_matches('/'));
        // What is behind a link is not of this store, and may be everything that there is.
        if start == **self.root || !start.is_symlink() {
            collect(&self.root, &start, &mut keys)?;
        }
        if keys.is_empty() {
            self.is_there()?;
        }
        keys.retain(|key| key.starts_with(prefix));
        keys.sort_unstable();
        Ok(keys)
    }

    fn entries(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for key in keys {
            // What was removed meanwhile is not there; what is no value of ours must not hide the others.
            match self.read(key) {
                Ok(found) => entries.extend(found),
                Err(StoreError::Invalid(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn page_now(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let mut keys = self.keys(prefix)?;
        keys.retain(|key| after.is_none_or(|after| key.as_str() > after));
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        let entries = self.entries(&keys)?;
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
        let done = tokio::task::spawn_blocking(move || job(&store));
        // A network file system may answer in an hour: nobody waits for that.
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(done) => done.map_err(|error| StoreError::Unreachable(error.to_string()))?,
            Err(_) => Err(StoreError::Unreachable(format!(
                "{}: no answer within {} s",
                self.root.display(),
                PATIENCE.as_secs()
            ))),
        }
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

    async fn pick(
        &self,
        prefix: &str,
        most: usize,
        is_wanted: impl Fn(&str) -> bool + Send,
    ) -> Result<Vec<Entry>, StoreError> {
        let prefix = prefix.to_owned();
        let mut keys = self.blocking(move |store| store.keys(&prefix)).await?;
        keys.retain(|key| is_wanted(key));
        let mut found = Vec::new();
        for some in keys.chunks(PAGE) {
            let some = some.to_vec();
            let entries = self.blocking(move |store| store.entries(&some)).await?;
            found.extend(
                entries
                    .into_iter()
                    .filter(|entry| entry.value.len() <= most),
            );
        }
        Ok(found)
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
    // A link, a pipe, something in the way: not what was written here.
    let is_other =
        [io::ErrorKind::InvalidData, io::ErrorKind::NotADirectory].contains(&error.kind());
    if is_other || error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) {
        return StoreError::Invalid(what);
    }
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
