//! The connection: to one member at a time, and on to the next where it is gone.

use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::{Etcd, proto};
use crate::store::tls::Material;
use crate::store::{StoreError, causes};

/// How long a member may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often an idle connection is asked whether it lives, and how long it may take to say so: without that, a member that
/// is frozen is not noticed.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// Answers are refused beyond: a page of statuses is a megabyte, and a value at most as much.
const LARGEST: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct State {
    pub(super) link: Option<Link>,
    /// Index of the member whose turn it is.
    pub(super) turn: usize,
}

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
    /// When it must be made anew.
    pub(super) until: Instant,
    number: u64,
}

impl Etcd {
    /// The connection, which is made if there is none.
    pub(super) async fn link(&self) -> Result<Link, StoreError> {
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
    pub(super) async fn leave(&self, link: &Link) {
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
    pub(super) async fn ask<Q, A>(
        &self,
        path: &'static str,
        question: Q,
        again: bool,
    ) -> Result<A, StoreError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut last = StoreError::Unreachable("no member was asked".to_owned());
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

pub(super) async fn unary<Q, A>(link: &Link, path: &'static str, question: Q) -> Result<A, Status>
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

pub(super) async fn client(link: &Link) -> Result<tonic::client::Grpc<Channel>, Status> {
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
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = tonic::metadata::MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}

pub(super) async fn keep_alive(link: &Link, id: i64) -> Result<bool, Status> {
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
pub(super) fn is_gone(status: &Status) -> bool {
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

pub(super) fn explain(status: &Status) -> StoreError {
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
