//! etcd: compare-and-swap, leases, and watches from a revision.
//!
//! One connection at a time, to one member. Whatever goes wrong with it (refused, reset, or silent for longer than a
//! request may take) moves on to the next member. It is made anew daily, and before its certificate ends.

mod auth;
mod proto;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tokio::sync::Mutex;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

pub use auth::{AGENT, CONTROLLER, PUBLISHER, READER, classes, is_open, set_up};
pub use watch::EtcdWatch;

use super::tls::Material;
use super::{Compare, Entry, Files, MAX_VALUE, Op, PAGE, Store, StoreError, Watch, causes, check};

/// Everything of ours is below.
const ROOT: &str = "/portguard/v1/";
/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an idle connection is asked whether it lives, and how long it may take to say so: without that, a member that
/// is frozen is not noticed.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// Answers are refused beyond: a page of statuses is a megabyte, and a value at most as much.
const LARGEST: usize = 8 << 20;

/// A store in etcd. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Etcd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hosts: Vec<String>,
    files: Files,
    link: Mutex<State>,
    leases: Mutex<HashMap<String, i64>>,
}

#[derive(Debug)]
struct State {
    link: Option<Link>,
    /// Index of the member whose turn it is.
    turn: usize,
}

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    channel: Channel,
    /// When it must be made anew.
    until: Instant,
    number: u64,
}

impl Etcd {
    /// A store at these members, `HOST:PORT`; nothing is connected yet. Without certificates the connection is in the
    /// clear, which is for tests on one machine.
    ///
    /// # Errors
    /// If the files of the certificates cannot be read.
    pub fn new(hosts: &[String], files: &Files) -> Result<Self, StoreError> {
        files.read()?;
        if hosts.is_empty() {
            return Err(StoreError::Invalid("no member of etcd is named".to_owned()));
        }
        Ok(Self(Arc::new(Shared {
            hosts: hosts.to_vec(),
            files: files.clone(),
            link: Mutex::new(State {
                link: None,
                // Agents that are given the same list do not all ask its first member.
                turn: fastrand::usize(..hosts.len()),
            }),
            leases: Mutex::new(HashMap::new()),
        })))
    }

    /// The connection, which is made if there is none.
    async fn link(&self) -> Result<Link, StoreError> {
        let mut state = self.0.link.lock().await;
        if let Some(link) = state
            .link
            .as_ref()
            .filter(|link| Instant::now() < link.until)
        {
            return Ok(link.clone());
        }
        state.link = None;
        let material = self.0.files.read()?;
        let mut last = String::new();
        for _ in 0..self.0.hosts.len() {
            let count = self.0.hosts.len();
            let Some(host) = self.0.hosts.get(state.turn % count) else {
                break;
            };
            match connect(host, &material).await {
                Ok(channel) => {
                    let link = Link {
                        channel,
                        until: Instant::now() + material.life(),
                        number: fastrand::u64(..),
                    };
                    state.link = Some(link.clone());
                    return Ok(link);
                }
                Err(error) => {
                    last = format!("{host}: {error}");
                    state.turn = (state.turn + 1) % count;
                }
            }
        }
        Err(StoreError::Unreachable(last))
    }

    /// Moves on to the next member, unless somebody did so already.
    async fn leave(&self, link: &Link) {
        let mut state = self.0.link.lock().await;
        if state
            .link
            .as_ref()
            .is_some_and(|now| now.number == link.number)
        {
            state.link = None;
            state.turn = (state.turn + 1) % self.0.hosts.len();
        }
    }

    /// Asks, each member once if need be. `again`: whether it does no harm if it was carried out and nobody could say so.
    async fn ask<Q, A>(&self, path: &'static str, question: Q, again: bool) -> Result<A, StoreError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut last = StoreError::Unreachable("nobody was asked".to_owned());
        for _ in 0..=self.0.hosts.len() {
            let link = self.link().await?;
            match unary(&link, path, question.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    let is_gone = is_gone(&status);
                    last = explain(&status);
                    if is_gone {
                        self.leave(&link).await;
                    }
                    if !(is_gone && again) {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn txn(
        &self,
        compare: Vec<proto::Compare>,
        success: Vec<proto::RequestOp>,
        again: bool,
    ) -> Result<bool, StoreError> {
        let request = proto::TxnRequest { compare, success };
        let answer: proto::TxnResponse = self.ask("/etcdserverpb.KV/Txn", request, again).await?;
        Ok(answer.succeeded)
    }

    /// The lease for a key: the one that it has, if it still lives, or a new one.
    async fn lease_of(&self, key: &str, seconds: u64) -> Result<i64, StoreError> {
        let known = self.0.leases.lock().await.get(key).copied();
        if let Some(id) = known {
            let link = self.link().await?;
            match keep_alive(&link, id).await {
                Ok(true) => return Ok(id),
                Ok(false) => {}
                Err(status) => {
                    if is_gone(&status) {
                        self.leave(&link).await;
                    }
                }
            }
        }
        let request = proto::LeaseGrantRequest {
            ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let granted: proto::LeaseGrantResponse = self
            .ask("/etcdserverpb.Lease/LeaseGrant", request, true)
            .await?;
        self.0
            .leases
            .lock()
            .await
            .insert(key.to_owned(), granted.id);
        Ok(granted.id)
    }
}

impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check(key, &[])?;
        let request = proto::RangeRequest {
            key: full(key),
            range_end: Vec::new(),
            limit: 1,
        };
        let answer: proto::RangeResponse =
            self.ask("/etcdserverpb.KV/Range", request, true).await?;
        answer.kvs.into_iter().next().map(entry).transpose()
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let mut first = full(after.unwrap_or(prefix));
        if after.is_some() {
            // The next key there can be.
            first.push(0);
        }
        let mut limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let answer = loop {
            let request = proto::RangeRequest {
                key: first.clone(),
                range_end: end_of(&full(prefix)),
                limit,
            };
            let asked: Result<proto::RangeResponse, _> =
                self.ask("/etcdserverpb.KV/Range", request, true).await;
            match asked {
                Ok(answer) => break answer,
                // Somebody filled the page with more than values of ours can have: ask for less at a time.
                Err(StoreError::TooLarge(_)) if limit > 1 => limit = (limit / 8).max(1),
                Err(error) => return Err(error),
            }
        };
        let entries = answer.kvs.into_iter().map(bounded).collect();
        Ok((entries, answer.more))
    }

    async fn commit(&self, compares: &[Compare], ops: &[Op]) -> Result<bool, StoreError> {
        let mut requests = Vec::new();
        for op in ops {
            let request = match op {
                Op::Put(key, value) => {
                    check(key, value)?;
                    proto::Request::Put(proto::PutRequest {
                        key: full(key),
                        value: value.clone(),
                        lease: 0,
                    })
                }
                Op::Delete(key) => {
                    check(key, &[])?;
                    proto::Request::Delete(proto::DeleteRangeRequest { key: full(key) })
                }
            };
            requests.push(proto::RequestOp {
                request: Some(request),
            });
        }
        let compares: Vec<proto::Compare> = compares.iter().map(compare).collect();
        // Written twice is written; compared twice is refused by what it wrote itself.
        let again = compares.is_empty();
        self.txn(compares, requests, again).await
    }

    async fn lease(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> Result<bool, StoreError> {
        check(key, value)?;
        let lease = self.lease_of(key, seconds).await?;
        let put = || {
            vec![proto::RequestOp {
                request: Some(proto::Request::Put(proto::PutRequest {
                    key: full(key),
                    value: value.to_vec(),
                    lease,
                })),
            }]
        };
        if !only_if_mine {
            return self.txn(Vec::new(), put(), true).await;
        }
        let absent = compare(&Compare::Absent(key.to_owned()));
        let mine = proto::Compare {
            result: proto::EQUAL,
            target: proto::LEASE,
            key: full(key),
            value: Some(proto::Target::Lease(lease)),
        };
        // Either way the key is ours by then: asking again is harmless.
        Ok(self.txn(vec![mine], put(), true).await? || self.txn(vec![absent], put(), true).await?)
    }

    async fn release(&self, key: &str) -> Result<(), StoreError> {
        let lease = self.0.leases.lock().await.remove(key);
        if let Some(id) = lease {
            let request = proto::LeaseRequest { id };
            let revoked: Result<proto::Empty, _> = self
                .ask("/etcdserverpb.Lease/LeaseRevoke", request, false)
                .await;
            // It may have ended by itself.
            if let Err(StoreError::Refused(why)) = &revoked
                && why.contains("lease not found")
            {
                return Ok(());
            }
            revoked?;
        }
        Ok(())
    }

    async fn watch(&self, keys: &[String]) -> Result<Watch, StoreError> {
        for key in keys {
            check(key, &[])?;
        }
        Ok(Watch::Etcd(Box::new(EtcdWatch::new(self.clone(), keys))))
    }

    async fn reconnect(&self) -> Result<(), StoreError> {
        self.0.link.lock().await.link = None;
        Ok(())
    }
}

async fn connect(host: &str, material: &Material) -> Result<Channel, String> {
    let is_secure = material.ca.is_some() || material.identity.is_some();
    let scheme = if is_secure { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if is_secure {
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &material.ca {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((cert, key)) = &material.identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(|error| causes(&error))?;
    }
    let connecting = tokio::time::timeout(PATIENCE, endpoint.connect());
    match connecting.await {
        Ok(connected) => connected.map_err(|error| causes(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn unary<Q, A>(link: &Link, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = client(link).await?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let asking = client.unary(request(question), PathAndQuery::from_static(path), codec);
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

async fn client(link: &Link) -> Result<tonic::client::Grpc<Channel>, Status> {
    let mut client =
        tonic::client::Grpc::new(link.channel.clone()).max_decoding_message_size(LARGEST);
    let ready = tokio::time::timeout(PATIENCE, client.ready()).await;
    match ready {
        Ok(Ok(())) => Ok(client),
        Ok(Err(error)) => Err(Status::unavailable(causes(&error))),
        Err(_) => Err(Status::unavailable("the connection is stuck")),
    }
}

/// A member that lost its leader says so instead of giving answers, or none, that are old.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = tonic::metadata::MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}

async fn keep_alive(link: &Link, id: i64) -> Result<bool, Status> {
    let asking = async {
        let mut client = client(link).await?;
        let codec =
            tonic_prost::ProstCodec::<proto::LeaseRequest, proto::LeaseKeepAliveResponse>::default(
            );
        let once = tokio_stream::once(proto::LeaseRequest { id });
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let answer = client.streaming(request(once), path, codec).await?;
        let answer = answer.into_inner().message().await?;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(
            "the lease was not renewed in time",
        )),
    }
}

/// Whether another member may do better.
fn is_gone(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
    )
}

fn explain(status: &Status) -> StoreError {
    let mut text = status.message().to_owned();
    if let Some(error) = std::error::Error::source(status) {
        text = format!("{text}: {}", causes(error));
    }
    if status.code() == Code::OutOfRange {
        return StoreError::TooLarge(text);
    }
    let refusals = [
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::NotFound,
    ];
    if refusals.contains(&status.code()) {
        StoreError::Refused(text)
    } else {
        StoreError::Unreachable(text)
    }
}

fn full(key: &str) -> Vec<u8> {
    format!("{ROOT}{key}").into_bytes()
}

/// The first key that does not begin like this.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// As [`entry`], for lists: one value that is too large, which reads as empty, must not hide all others.
fn bounded(mut kv: proto::KeyValue) -> Entry {
    if kv.value.len() > MAX_VALUE {
        kv.value.clear();
    }
    Entry {
        key: key_of(kv.key),
        value: kv.value,
        version: u64::try_from(kv.mod_revision).unwrap_or_default(),
    }
}

fn key_of(bytes: Vec<u8>) -> String {
    let key = String::from_utf8(bytes).unwrap_or_default();
    key.strip_prefix(ROOT).unwrap_or_default().to_owned()
}

fn entry(kv: proto::KeyValue) -> Result<Entry, StoreError> {
    let key = key_of(kv.key);
    if kv.value.len() > MAX_VALUE {
        return Err(StoreError::Invalid(format!("`{key}` is too large")));
    }
    Ok(Entry {
        key,
        value: kv.value,
        version: u64::try_from(kv.mod_revision).unwrap_or_default(),
    })
}

fn compare(compare: &Compare) -> proto::Compare {
    let (key, target, value) = match compare {
        Compare::Absent(key) => (key, proto::CREATE, proto::Target::Create(0)),
        Compare::Version(key, version) => {
            let version = i64::try_from(*version).unwrap_or(i64::MAX);
            (key, proto::MOD, proto::Target::Mod(version))
        }
    };
    proto::Compare {
        result: proto::EQUAL,
        target,
        key: full(key),
        value: Some(value),
    }
}
