//! Watches: from the revision of the first look; where that was compacted away, look again.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use super::proto;
use super::{Etcd, Link, PATIENCE, bounded, client, explain, full, is_gone, request};
use crate::store::{Snapshot, StoreError};

/// Events that come together are one change.
const TOGETHER: Duration = Duration::from_millis(2);

/// A watch of some keys.
#[derive(Debug)]
pub struct EtcdWatch {
    store: Etcd,
    keys: Vec<String>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    link: Link,
    events: Streaming<proto::WatchResponse>,
    /// The stream lives as long as what we could still send.
    _requests: mpsc::Sender<proto::WatchRequest>,
    snapshot: Snapshot,
    /// Whether it has what nobody was told yet: whoever waits may give up at any moment.
    is_news: bool,
}

impl EtcdWatch {
    pub(super) fn new(store: Etcd, keys: &[String]) -> Self {
        Self {
            store,
            keys: keys.to_vec(),
            open: None,
        }
    }

    /// See [`crate::store::Watch::changed`].
    pub(crate) async fn changed(&mut self) -> Result<Snapshot, StoreError> {
        let Some(open) = &mut self.open else {
            return self.look().await;
        };
        match open.next(&self.keys).await {
            Ok(true) => Ok(open.snapshot.clone()),
            // Compacted, or the connection has lived long enough.
            Ok(false) => self.look().await,
            Err(status) => {
                if is_gone(&status) {
                    self.store.leave(&open.link).await;
                }
                self.open = None;
                Err(explain(&status))
            }
        }
    }

    /// Looks at all keys at one revision, and watches from there on.
    async fn look(&mut self) -> Result<Snapshot, StoreError> {
        self.open = None;
        let link = self.store.link().await?;
        match self.begin(&link).await {
            Ok(open) => {
                let snapshot = open.snapshot.clone();
                self.open = Some(open);
                Ok(snapshot)
            }
            Err(status) => {
                if is_gone(&status) {
                    self.store.leave(&link).await;
                }
                Err(explain(&status))
            }
        }
    }

    async fn begin(&self, link: &Link) -> Result<Open, Status> {
        let ranges = self.keys.iter().map(|key| proto::RequestOp {
            request: Some(proto::Request::Range(proto::RangeRequest {
                key: full(key),
                range_end: Vec::new(),
                limit: 1,
            })),
        });
        let txn = proto::TxnRequest {
            compare: Vec::new(),
            success: ranges.collect(),
        };
        let seen: proto::TxnResponse = super::unary(link, "/etcdserverpb.KV/Txn", txn).await?;
        let mut snapshot = Snapshot::new();
        for response in seen.responses {
            let Some(proto::Response::Range(range)) = response.response else {
                return Err(Status::data_loss("a range was asked for"));
            };
            // What is no value of ours says nothing, and must not keep a host from the rest.
            snapshot.push(range.kvs.into_iter().next().map(bounded));
        }
        if snapshot.len() != self.keys.len() {
            return Err(Status::data_loss("not all keys were answered"));
        }
        let revision = seen.header.map_or(0, |header| header.revision);
        let (sender, receiver) = mpsc::channel(self.keys.len().max(1));
        for key in &self.keys {
            let create = proto::WatchCreate {
                key: full(key),
                start_revision: revision + 1,
            };
            let request = proto::WatchRequest {
                kind: Some(proto::WatchKind::Create(create)),
            };
            // There is room for all of them.
            let _ = sender.try_send(request);
        }
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let codec = tonic_prost::ProstCodec::<proto::WatchRequest, proto::WatchResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let opening = async {
            let mut client = client(link).await?;
            client.streaming(request(requests), path, codec).await
        };
        let events = timeout(PATIENCE, opening)
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("the watch was not opened in time"))??
            .into_inner();
        Ok(Open {
            link: link.clone(),
            events,
            _requests: sender,
            snapshot,
            is_news: false,
        })
    }
}

impl Open {
    /// Takes in the next events; `false`: look again.
    async fn next(&mut self, keys: &[String]) -> Result<bool, Status> {
        let until = Instant::from_std(self.link.until);
        loop {
            let next = if self.is_news {
                let Ok(next) = timeout(TOGETHER, self.events.next()).await else {
                    self.is_news = false;
                    return Ok(true);
                };
                next
            } else {
                let Ok(next) = timeout_at(until, self.events.next()).await else {
                    return Ok(false);
                };
                next
            };
            let Some(response) = next else {
                return Err(Status::unavailable("the watch ended"));
            };
            let response = response?;
            if response.compact_revision > 0 {
                return Ok(false);
            }
            if response.canceled {
                let why = response.cancel_reason;
                return Err(if why.contains("permission") {
                    Status::permission_denied(why)
                } else {
                    Status::unavailable(format!("the watch was cancelled: {why}"))
                });
            }
            for event in response.events {
                self.is_news |= self.apply(event, keys);
            }
        }
    }

    fn apply(&mut self, event: proto::Event, keys: &[String]) -> bool {
        let Some(kv) = event.kv else { return false };
        let is_removal = event.kind != 0;
        let found = bounded(kv);
        let place = keys.iter().position(|key| *key == found.key);
        let Some(slot) = place.and_then(|place| self.snapshot.get_mut(place)) else {
            return false;
        };
        *slot = (!is_removal).then_some(found);
        true
    }
}
