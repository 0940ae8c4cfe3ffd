//! Where releases, positions and statuses are: one layout ([`crate::layout`]), three kinds of store.
//!
//! A store is not trusted with anything but to be there: what it says is signed, or can only hold a host back.

pub mod directory;
pub mod etcd;
pub mod https;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use directory::Directory;
pub use etcd::Etcd;
pub use https::Https;
pub use tls::Files;

/// Larger values are refused, whatever the store would take.
pub const MAX_VALUE: usize = 1 << 20;
/// Entries that are asked for at a time: a thousand statuses are a megabyte.
pub const PAGE: usize = 1000;

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// What is there.
    pub value: Vec<u8>,
    /// Another one for every value that was there; only equality means anything.
    pub version: u64,
}

/// What must hold for a commit to be carried out.
#[derive(Debug, Clone)]
pub enum Compare {
    /// There is nothing at this key.
    Absent(String),
    /// There is still this version.
    Version(String, u64),
}

impl Compare {
    /// What [`Store::get`] saw is still so.
    pub fn unchanged(key: &str, seen: Option<&Entry>) -> Self {
        match seen {
            Some(entry) => Self::Version(key.to_owned(), entry.version),
            None => Self::Absent(key.to_owned()),
        }
    }
}

/// What a commit does.
#[derive(Debug, Clone)]
pub enum Op {
    /// Writes.
    Put(String, Vec<u8>),
    /// Removes.
    Delete(String),
}

/// Why a store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not answer; it may later.
    #[error("the store does not answer: {0}")]
    Unreachable(String),
    /// It answers, and does not let us.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// An answer is larger than what is taken at once.
    #[error("the store's answer is too large: {0}")]
    TooLarge(String),
    /// It can be read only.
    #[error("this store is read-only: {0}")]
    ReadOnly(&'static str),
    /// No key, a value that is too large, a certificate that cannot be read.
    #[error("{0}")]
    Invalid(String),
}

/// What a watch sees: the present entries of the keys that were asked for, in their order.
pub type Snapshot = Vec<Option<Entry>>;

/// A store.
pub trait Store: Send + Sync {
    /// What is at a key, as it is now for everybody.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Entry>, StoreError>> + Send;

    /// The entries whose keys begin like this, by key, after the last one of the page before; whether there are more.
    fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<(Vec<Entry>, bool), StoreError>> + Send;

    /// Does all if all compares hold, in order; else nothing, and says so by `false`.
    fn commit(
        &self,
        compares: &[Compare],
        ops: &[Op],
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Writes what goes away by itself unless it is written again in time. With `only_if_mine`, only where nothing is, or
    /// what this store wrote: that is how one of several becomes the controller.
    fn lease(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends what [`Self::lease`] wrote.
    fn release(&self, key: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Watches some keys: [`Watch::changed`] gives the first snapshot at once.
    fn watch(&self, keys: &[String]) -> impl Future<Output = Result<Watch, StoreError>> + Send;

    /// Forgets every connection: the next request makes a new one, with the certificates as they are now on disk.
    fn reconnect(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether statuses can be written.
    fn is_writable(&self) -> bool {
        true
    }

    /// All entries whose keys begin like this.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send {
        self.pick(prefix, MAX_VALUE, |_| true)
    }

    /// Those of them that have a wanted key, and a value of so many bytes at most. A store can have any number of others:
    /// only these are kept, and where keys cost nothing only these are read.
    fn pick(
        &self,
        prefix: &str,
        most: usize,
        is_wanted: impl Fn(&str) -> bool + Send,
    ) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send {
        async move {
            let mut wanted: Vec<Entry> = Vec::new();
            let mut after: Option<String> = None;
            loop {
                let (entries, more) = self.page(prefix, after.as_deref()).await?;
                after = entries.last().map(|entry| entry.key.clone());
                let is_ours = |entry: &Entry| entry.value.len() <= most && is_wanted(&entry.key);
                wanted.extend(entries.into_iter().filter(is_ours));
                if !more || after.is_none() {
                    return Ok(wanted);
                }
            }
        }
    }

    /// Writes, whatever was there.
    fn put(
        &self,
        key: &str,
        value: Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async move {
            self.commit(&[], &[Op::Put(key.to_owned(), value)]).await?;
            Ok(())
        }
    }
}

/// A watch that is open.
#[derive(Debug)]
pub enum Watch {
    /// Of a directory or a web server.
    Poll(Poll),
    /// Of etcd.
    Etcd(Box<etcd::EtcdWatch>),
}

/// Asks again and again: there is no event to wait for that also comes over NFS.
#[derive(Debug)]
pub struct Poll {
    source: Source,
    keys: Vec<String>,
    every: Duration,
    last: Option<Vec<Option<u64>>>,
}

#[derive(Debug)]
enum Source {
    Directory(Directory),
    Https(Https),
}

impl Watch {
    /// Waits for the next change. What happened meanwhile is one change; nothing that is there now is ever missed.
    ///
    /// # Errors
    /// If the store is gone; begin a new watch then.
    pub async fn changed(&mut self) -> Result<Snapshot, StoreError> {
        match self {
            Self::Poll(poll) => poll.changed().await,
            Self::Etcd(watch) => watch.changed().await,
        }
    }
}

impl Poll {
    async fn changed(&mut self) -> Result<Snapshot, StoreError> {
        loop {
            let mut snapshot = Snapshot::new();
            for key in &self.keys {
                let found = match &self.source {
                    Source::Directory(store) => store.get(key).await,
                    Source::Https(store) => store.get(key).await,
                };
                snapshot.push(match found {
                    // What is no value of ours says nothing, and must not keep a host from the rest.
                    Err(StoreError::Invalid(_)) => None,
                    found => found?,
                });
            }
            let versions = snapshot
                .iter()
                .map(|entry| entry.as_ref().map(|entry| entry.version))
                .collect();
            if self.last.as_ref() != Some(&versions) {
                self.last = Some(versions);
                return Ok(snapshot);
            }
            // So that a thousand agents that were started together do not ask together for ever.
            tokio::time::sleep(self.every.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }
}

/// Where a store is, as it is written on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `file:DIR`.
    Directory(PathBuf),
    /// `etcd://HOST[:PORT],...`, with the port that etcd has by default.
    Etcd(Vec<String>),
    /// `https://HOST[:PORT]/PATH`.
    Https(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(Self::Directory(path.into()));
        }
        if let Some(hosts) = text.strip_prefix("etcd://") {
            let hosts: Vec<String> = hosts.split(',').map(with_port).collect();
            let is_right = hosts
                .iter()
                .all(|host| host.parse::<http::uri::Authority>().is_ok());
            if is_right {
                return Ok(Self::Etcd(hosts));
            }
        }
        if text.starts_with("https://") && text.parse::<http::Uri>().is_ok() {
            return Ok(Self::Https(text.trim_end_matches('/').to_owned()));
        }
        Err(format!(
            "`{text}` is not a store: expected `file:DIR`, `etcd://HOST[:PORT],...` or `https://HOST/PATH`"
        ))
    }
}

fn with_port(host: &str) -> String {
    let after_bracket = host.rsplit(']').next().unwrap_or(host);
    if after_bracket.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:2379")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file:{}", path.display()),
            Self::Etcd(hosts) => write!(f, "etcd://{}", hosts.join(",")),
            Self::Https(url) => f.write_str(url),
        }
    }
}

/// Any of them.
#[derive(Debug, Clone)]
pub enum AnyStore {
    /// A directory.
    Directory(Directory),
    /// etcd.
    Etcd(Etcd),
    /// A web server.
    Https(Https),
}

impl AnyStore {
    /// Opens a store; nothing is connected yet.
    ///
    /// # Errors
    /// If the files of the certificates cannot be read.
    pub fn open(address: &Address, files: &Files) -> Result<Self, StoreError> {
        Ok(match address {
            Address::Directory(path) => Self::Directory(Directory::new(path)),
            Address::Etcd(hosts) => Self::Etcd(Etcd::new(hosts, files)?),
            Address::Https(url) => Self::Https(Https::new(url, files)?),
        })
    }
}

macro_rules! each {
    ($self:ident, $store:ident => $do:expr) => {
        match $self {
            Self::Directory($store) => $do,
            Self::Etcd($store) => $do,
            Self::Https($store) => $do,
        }
    };
}

impl Store for AnyStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        each!(self, store => store.get(key).await)
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        each!(self, store => store.page(prefix, after).await)
    }

    async fn pick(
        &self,
        prefix: &str,
        most: usize,
        is_wanted: impl Fn(&str) -> bool + Send,
    ) -> Result<Vec<Entry>, StoreError> {
        each!(self, store => store.pick(prefix, most, is_wanted).await)
    }

    async fn commit(&self, compares: &[Compare], ops: &[Op]) -> Result<bool, StoreError> {
        each!(self, store => store.commit(compares, ops).await)
    }

    async fn lease(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> Result<bool, StoreError> {
        each!(self, store => store.lease(key, value, seconds, only_if_mine).await)
    }

    async fn release(&self, key: &str) -> Result<(), StoreError> {
        each!(self, store => store.release(key).await)
    }

    async fn watch(&self, keys: &[String]) -> Result<Watch, StoreError> {
        each!(self, store => store.watch(keys).await)
    }

    async fn reconnect(&self) -> Result<(), StoreError> {
        each!(self, store => store.reconnect().await)
    }

    fn is_writable(&self) -> bool {
        each!(self, store => store.is_writable())
    }
}

/// Keys and values that no store takes.
fn check(key: &str, value: &[u8]) -> Result<(), StoreError> {
    if !crate::layout::is_key(key) {
        return Err(StoreError::Invalid(format!("`{key}` is no key")));
    }
    if value.len() > MAX_VALUE {
        return Err(StoreError::Invalid(format!(
            "{} bytes for `{key}` are more than {MAX_VALUE}",
            value.len()
        )));
    }
    Ok(())
}

/// An error and what is below it: clients say only that the connection failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
