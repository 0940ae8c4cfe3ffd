//! Certificates, read from disk anew for every connection: whoever renews them writes files.

use std::path::PathBuf;
use std::time::Duration;

use super::StoreError;
use crate::now;

/// A connection is made anew at least so often: a watch goes on after its certificate was revoked.
const DAILY: Duration = Duration::from_hours(24);
/// A certificate is not used in its last minutes.
const BEFORE_EXPIRY: Duration = Duration::from_mins(5);

/// Where certificates and keys are. Nothing is asked of the system's own list of authorities unless `ca` is missing.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Authority that signed the store's certificate, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

/// What was in the files.
#[derive(Debug, Clone)]
pub(super) struct Material {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    pub(super) fn read(&self) -> Result<Material, StoreError> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| StoreError::Invalid(format!("{}: {error}", path.display())))
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            _ => {
                return Err(StoreError::Invalid(
                    "a certificate needs its key, and a key its certificate".to_owned(),
                ));
            }
        };
        Ok(Material {
            ca: self.ca.as_ref().map(read).transpose()?,
            identity,
        })
    }

    /// Seconds until our certificate ends, if there is one that can be read.
    pub fn seconds_left(&self) -> Option<u64> {
        let bytes = std::fs::read(self.cert.as_ref()?).ok()?;
        seconds_left(&bytes)
    }
}

impl Material {
    /// For how long a connection with it may live.
    pub(super) fn life(&self) -> Duration {
        let left = self
            .identity
            .as_ref()
            .and_then(|(cert, _)| seconds_left(cert));
        match left {
            Some(left) => Duration::from_secs(left)
                .saturating_sub(BEFORE_EXPIRY)
                .max(Duration::from_secs(10))
                .min(DAILY),
            None => DAILY,
        }
    }
}

fn seconds_left(pem: &[u8]) -> Option<u64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let cert = pem.parse_x509().ok()?;
    let ends = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
    Some(ends.saturating_sub(now()))
}
