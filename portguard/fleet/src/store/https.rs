//! A web server that has the same layout: for hosts that may only read. They cannot say how they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{ETAG, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    Compare, Entry, Files, MAX_VALUE, Op, Poll, Source, Store, StoreError, Watch, causes, check,
};
use crate::Hash;

/// How often a watch asks, which with an `ETag` costs a server next to nothing.
const EVERY: Duration = Duration::from_secs(15);
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Debian, and most others after it, have the system's authorities.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

type Connector = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A store behind a web server. Clones share connections.
#[derive(Debug, Clone)]
pub struct Https(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    url: String,
    files: Files,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<(Connector, Instant)>,
    /// What was there last, by key: its tag, and itself.
    known: HashMap<String, (String, Entry)>,
}

impl Https {
    /// A store there; nothing is asked yet.
    ///
    /// # Errors
    /// If the files of the certificates cannot be read.
    pub fn new(url: &str, files: &Files) -> Result<Self, StoreError> {
        Self::asking(url, files, EVERY)
    }

    /// The same, with watches that ask so often.
    ///
    /// # Errors
    /// If the files of the certificates cannot be read.
    pub fn asking(url: &str, files: &Files, every: Duration) -> Result<Self, StoreError> {
        files.read()?;
        Ok(Self(Arc::new(Shared {
            url: url.trim_end_matches('/').to_owned(),
            files: files.clone(),
            every,
            state: Mutex::new(State::default()),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn client(&self) -> Result<Connector, StoreError> {
        let mut state = self.state();
        let live = state
            .client
            .as_ref()
            .filter(|(_, until)| Instant::now() < *until);
        if let Some((client, _)) = live {
            return Ok(client.clone());
        }
        let material = self.0.files.read()?;
        let invalid = |what: String| StoreError::Invalid(what);
        let ca = match &material.ca {
            Some(ca) => ca.clone(),
            None => std::fs::read(SYSTEM)
                .map_err(|error| invalid(format!("{SYSTEM}: {error}: name an authority")))?,
        };
        let mut roots = rustls::RootCertStore::empty();
        let certs = CertificateDer::pem_slice_iter(&ca).filter_map(Result::ok);
        roots.add_parsable_certificates(certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &material.identity {
            Some((cert, key)) => {
                let chain = CertificateDer::pem_slice_iter(cert)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| invalid(format!("our certificate: {error}")))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| invalid(format!("our key: {error}")))?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| invalid(error.to_string()))?
            }
            None => config.with_no_client_auth(),
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let until = Instant::now() + material.life();
        state.client = Some((client.clone(), until));
        Ok(client)
    }

    async fn ask(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let gone = |what: String| StoreError::Unreachable(what);
        let client = self.client()?;
        let url = format!("{}/{key}", self.0.url);
        let mut request = Request::get(&url);
        let known = self.state().known.get(key).cloned();
        if let Some((tag, _)) = &known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| StoreError::Invalid(format!("{url}: {error}")))?;
        let response = client
            .request(request)
            .await
            .map_err(|error| gone(causes(&error)))?;
        match (response.status(), known) {
            (StatusCode::NOT_MODIFIED, Some((_, entry))) => return Ok(Some(entry)),
            (StatusCode::NOT_FOUND, _) => {
                self.state().known.remove(key);
                return Ok(None);
            }
            (StatusCode::OK, _) => {}
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                return Err(StoreError::Refused(format!("{url}: {}", response.status())));
            }
            (status, _) => return Err(gone(format!("{url}: {status}"))),
        }
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), MAX_VALUE)
            .collect()
            .await
            .map_err(|error| gone(format!("{url}: {error}")))?;
        let value = body.to_bytes().to_vec();
        let hash = Hash::of(&value);
        let first = hash.as_str().get(..16).unwrap_or_default();
        let entry = Entry {
            key: key.to_owned(),
            value,
            version: u64::from_str_radix(first, 16).unwrap_or_default(),
        };
        // Chunks are asked for once; only what is watched is worth keeping.
        if let Some(tag) = tag.filter(|_| !key.starts_with(crate::layout::OBJECTS)) {
            self.state()
                .known
                .insert(key.to_owned(), (tag, entry.clone()));
        }
        Ok(Some(entry))
    }
}

impl Store for Https {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check(key, &[])?;
        match tokio::time::timeout(PATIENCE, self.ask(key)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unreachable(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn page(&self, _: &str, _: Option<&str>) -> Result<(Vec<Entry>, bool), StoreError> {
        Err(StoreError::ReadOnly("a web server cannot list"))
    }

    async fn commit(&self, _: &[Compare], _: &[Op]) -> Result<bool, StoreError> {
        Err(StoreError::ReadOnly(
            "write to the directory that it serves",
        ))
    }

    async fn lease(&self, _: &str, _: &[u8], _: u64, _: bool) -> Result<bool, StoreError> {
        Err(StoreError::ReadOnly(
            "write to the directory that it serves",
        ))
    }

    async fn release(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn watch(&self, keys: &[String]) -> Result<Watch, StoreError> {
        Ok(Watch::Poll(Poll {
            source: Source::Https(self.clone()),
            keys: keys.to_vec(),
            every: self.0.every,
            last: None,
        }))
    }

    async fn reconnect(&self) -> Result<(), StoreError> {
        self.state().client = None;
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }
}
