//! etcd: compare-and-swap, leases, and watches from a revision.
//!
//! One connection at a time, to one member. Whatever goes wrong with it (refused, reset, or silent for longer than a
//! request may take) moves on to the next member. It is made anew daily, and before its certificate ends.

mod auth;
mod entry;
mod link;
mod proto;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use entry::{ROOT, bounded, compare, end_of, entry, full};
use link::{Link, PATIENCE, State, client, explain, is_gone, keep_alive, request, unary};

pub use auth::{AGENT, CONTROLLER, PUBLISHER, READER, classes, is_open, set_up};
pub use watch::EtcdWatch;

use super::{Compare, Entry, Files, Op, PAGE, Store, StoreError, Watch, check};

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

impl Etcd {
    /// A store at these members, `HOST:PORT`; nothing is connected yet. Without certificates the connection is in the
    /// clear, which is for tests on one machine.
    ///
    /// # Errors
    /// If the files of the certificates cannot be read.
    pub fn new(hosts: &[String], files: &Files) -> Result<Self, StoreError> {
        files.read()?;
        if hosts.is_empty() {
            return Err(StoreError::Invalid("no etcd member is named".to_owned()));
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
