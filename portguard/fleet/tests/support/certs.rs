//! An authority and certificates, made for a test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use portguard_fleet::store::Files;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// An authority, with its files in a directory.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    issued: AtomicU64,
}

impl Authority {
    pub(crate) fn new(directory: &Path) -> Self {
        let mut params = named("test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(directory.join("ca.pem"), cert.pem()).unwrap();
        let authority = Self {
            issuer: Issuer::new(params, key),
            directory: directory.to_owned(),
            issued: AtomicU64::new(0),
        };
        authority.revoke(&[]);
        authority
    }

    /// The certificates with these numbers, in the order in which they were issued from 1, count no more.
    pub(crate) fn revoke(&self, numbers: &[u64]) {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(numbers.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: numbers
                .iter()
                .map(|number| RevokedCertParams {
                    serial_number: SerialNumber::from(*number),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap().pem().unwrap();
        std::fs::write(self.revoked(), list).unwrap();
    }

    pub(crate) fn revoked(&self) -> PathBuf {
        self.directory.join("revoked.pem")
    }

    /// How many certificates were issued.
    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate for a class of clients, or a server, that lives so many seconds.
    pub(crate) fn issue(&self, name: &str, seconds: i64) -> Files {
        let mut params = named(name);
        params.subject_alt_names =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .unwrap()
                .subject_alt_names;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        params.serial_number = Some(SerialNumber::from(number));
        let now = std::time::SystemTime::now();
        params.not_before = (now - std::time::Duration::from_mins(1)).into();
        params.not_after = (now + std::time::Duration::from_secs(seconds.unsigned_abs())).into();
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        std::fs::write(file("pem"), cert.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        Files {
            ca: Some(self.ca()),
            cert: Some(file("pem")),
            key: Some(file("key")),
        }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
