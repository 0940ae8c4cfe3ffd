//! What a host says of itself, signed by its own key.
//!
//! Two documents: the status, which stays, and a sign of life, which does not. A status counts only together with a fresh
//! sign of life that names its hash, so that neither yesterday's status nor another host's can stand in for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::Hash;

/// The largest status, with its signature.
pub const MAX_STATUS: usize = 1024;
/// The largest evidence of an interface.
pub const MAX_EVIDENCE: usize = 16 << 10;
/// For how long a sign of life counts, and the lease that it has in the store.
pub const ALIVE_SECONDS: u64 = 180;
/// How often it is given.
pub const BEAT_SECONDS: u64 = 60;
/// For how long a host must have failed before that counts: what it could not read it reads again.
pub const FAILED_SECONDS: u64 = 45;
/// Clocks may differ by that much.
pub(crate) const SKEW: u64 = 60;
/// Longer reasons are cut.
const REASON: usize = 240;

/// Where a host is with the release.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum State {
    /// It gives signs of life, and has not said anything of this release.
    Pending,
    /// It has all documents.
    Fetched,
    /// They are what was signed, and compile to what was signed.
    Verified,
    /// It watches.
    Audit,
    /// Its own evidence lets it enforce; it waits for its turn.
    Ready,
    /// It enforces, and has not confirmed yet.
    Enforcing,
    /// It enforces for good (or, where the site says audit, audits for good).
    Confirmed,
    /// It could not do what it should.
    Failed,
    /// Somebody holds it.
    Held,
    /// It enforced, and went back.
    Reverted,
    /// It has given no sign of life, ever or for too long, or none that counts: it may be of any release.
    Silent,
}

impl State {
    /// All of them, in order.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// As scripts and people read it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it counts against `max_failed`.
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Failed | Self::Reverted | Self::Silent)
    }
}

/// What a host says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Its name.
    pub host: String,
    /// The release that this is about.
    pub serial: u64,
    /// Of its manifest, where this host goes by it: another with the same serial is another release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Hash>,
    /// Where it is with it.
    pub state: State,
    /// Since when.
    pub since: u64,
    /// When this was said.
    pub at: u64,
    /// The serial of the release that is in force here, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// Whether it drops anything.
    pub enforces: bool,
    /// For how many seconds it has watched.
    #[serde(default)]
    pub watched: u64,
    /// How many packets it has judged meanwhile.
    #[serde(default)]
    pub packets: u64,
    /// How many flows enforcing would drop that nobody accepted.
    #[serde(default)]
    pub would_drop: u64,
    /// Packets dropped, or that would have been.
    #[serde(default)]
    pub violations: u64,
    /// Undocumented services that listen.
    #[serde(default)]
    pub drift: u64,
    /// Version of the tool.
    pub tool: String,
    /// Why it is where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alive {
    /// Its name.
    pub host: String,
    /// When.
    pub at: u64,
    /// Of the status that it stands by.
    pub status: Hash,
    /// Of the one before, while it is being replaced: whoever looks in between sees a host that is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Hash>,
}

/// Why something that a host is said to have said does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Cannot be read, or is too large.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// Not signed by this host's key.
    #[error("it is not signed by the host's key")]
    Signature,
    /// The host has no key in the release.
    #[error("the host is not enrolled")]
    NotEnrolled,
    /// The host's key was revoked, for this reason.
    #[error("its key is revoked: {0}")]
    Revoked(String),
    /// It is about another host.
    #[error("it belongs to host `{0}`")]
    OtherHost(String),
    /// Nothing of it is in the store.
    #[error("it has never reported to this store")]
    Never,
    /// The sign of life is for another status.
    #[error("the heartbeat is for another status")]
    OtherStatus,
    /// No sign of life, or an old one.
    #[error("no heartbeat for {0} s")]
    Silent(u64),
}

/// The key of a host.
pub struct HostKey {
    pair: Ed25519KeyPair,
    fleet: String,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKey")
            .field("public", &self.public())
            .finish_non_exhaustive()
    }
}

impl HostKey {
    /// A new one, as it is kept: base64 of PKCS #8.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<String, String> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_unspecified| "the system gives no random numbers".to_owned())?;
        Ok(STANDARD.encode(made.as_ref()))
    }

    /// Reads what [`Self::generate`] made.
    ///
    /// # Errors
    /// If it is no key.
    pub fn parse(text: &str, fleet: &str) -> Result<Self, String> {
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|error| format!("the host's key is not base64: {error}"))?;
        let pair = Ed25519KeyPair::from_pkcs8(&bytes)
            .map_err(|error| format!("the host's key is invalid: {error}"))?;
        Ok(Self {
            pair,
            fleet: fleet.to_owned(),
        })
    }

    /// What the release has of it.
    pub fn public(&self) -> String {
        STANDARD.encode(self.pair.public_key().as_ref())
    }

    /// A status as the store has it. Too long a reason is cut, so that it always fits.
    pub fn status(&self, status: &Status) -> Vec<u8> {
        let mut status = status.clone();
        if status.why.len() > REASON {
            let end = (0..=REASON)
                .rev()
                .find(|end| status.why.is_char_boundary(*end));
            status.why.truncate(end.unwrap_or_default());
            status.why.push_str(" ...");
        }
        self.seal(
            "status",
            &serde_json::to_string(&status).unwrap_or_default(),
        )
    }

    /// A sign of life as the store has it.
    pub fn alive(&self, alive: &Alive) -> Vec<u8> {
        self.seal("alive", &serde_json::to_string(alive).unwrap_or_default())
    }

    /// Evidence as the store has it.
    pub fn evidence(&self, text: &str) -> Vec<u8> {
        self.seal("evidence", text)
    }

    fn seal(&self, kind: &str, body: &str) -> Vec<u8> {
        let signature = self.pair.sign(&signed(&self.fleet, kind, body));
        let signature = STANDARD.encode(signature.as_ref());
        format!("{signature}\n{body}").into_bytes()
    }
}

/// A word for the kind, so that no document can be passed off as another.
fn signed(fleet: &str, kind: &str, body: &str) -> Vec<u8> {
    format!("portguard {kind} 1\n{fleet}\n{body}").into_bytes()
}

/// The text that this host signed.
///
/// # Errors
/// [`Doubt`].
pub fn open<'a>(
    fleet: &str,
    kind: &str,
    key: Option<&str>,
    sealed: &'a [u8],
    limit: usize,
) -> Result<&'a str, Doubt> {
    let malformed = |why: &str| Doubt::Malformed(why.to_owned());
    if sealed.len() > limit {
        return Err(malformed("too large"));
    }
    let text = std::str::from_utf8(sealed).map_err(|error| malformed(&error.to_string()))?;
    let (signature, body) = text
        .split_once('\n')
        .ok_or_else(|| malformed("no signature"))?;
    let key = key.ok_or(Doubt::NotEnrolled)?;
    let decode = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|error| malformed(&error.to_string()))
    };
    UnparsedPublicKey::new(&ED25519, decode(key)?)
        .verify(&signed(fleet, kind, body), &decode(signature)?)
        .map_err(|_unspecified| Doubt::Signature)?;
    Ok(body)
}

/// What a host says, if it says it now.
///
/// # Errors
/// [`Doubt`].
pub fn read(
    fleet: &str,
    host: &str,
    key: Option<&str>,
    status: &[u8],
    alive: Option<&[u8]>,
    now: u64,
) -> Result<Status, Doubt> {
    let parse = |error: serde_json::Error| Doubt::Malformed(error.to_string());
    let body = open(fleet, "status", key, status, MAX_STATUS)?;
    let said: Status = serde_json::from_str(body).map_err(parse)?;
    if said.host != host {
        return Err(Doubt::OtherHost(said.host));
    }
    let Some(alive) = alive else {
        return Err(Doubt::Silent(now.saturating_sub(said.at)));
    };
    let body = open(fleet, "alive", key, alive, MAX_STATUS)?;
    let beat: Alive = serde_json::from_str(body).map_err(parse)?;
    if beat.host != host {
        return Err(Doubt::OtherHost(beat.host));
    }
    if beat.at > now + SKEW || now > beat.at + ALIVE_SECONDS + SKEW {
        return Err(Doubt::Silent(now.abs_diff(beat.at)));
    }
    let hash = Hash::of(status);
    if beat.status != hash && beat.before != Some(hash) {
        return Err(Doubt::OtherStatus);
    }
    Ok(said)
}
