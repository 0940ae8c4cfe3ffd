//! Who signs: minisign's keys and signatures, of which k of n are wanted.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};

use super::Refused;

/// The only comment that a stored signature has: minisign does not sign this line, so it may not say anything.
const COMMENT: &str = "untrusted comment: portguard release";
/// The most keys, and so signatures, of a release.
const MOST: usize = 16;
/// `Ed` or `ED`, the key's id, the signature.
const SIGNATURE_BYTES: usize = 2 + 8 + 64;

/// Who may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// Grows with every change.
    pub version: u64,
    /// How many of them must sign.
    pub threshold: usize,
    /// Public keys as minisign prints them.
    pub keys: BTreeSet<String>,
}

/// Signatures by the id of their key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signatures(BTreeMap<String, String>);

impl KeySet {
    /// Whether these can be keys at all.
    ///
    /// # Errors
    /// [`Refused::Keys`].
    pub fn check(&self) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Keys(why));
        if self.threshold == 0 || self.threshold > self.keys.len() || self.keys.len() > MOST {
            return refuse(format!(
                "{} of {} keys must sign: expected 1 to all of at most {MOST}",
                self.threshold,
                self.keys.len()
            ));
        }
        let (mut ids, mut points) = (BTreeSet::new(), BTreeSet::new());
        for key in &self.keys {
            if parse_key(key).is_none() {
                return refuse(format!("`{key}` is not a minisign public key"));
            }
            if !ids.insert(key_id(key)) {
                return refuse(format!("two keys have the id of `{key}`"));
            }
            // The id is only a name: one key under two of them would be two votes of one person.
            if !points.insert(
                STANDARD
                    .decode(key)
                    .ok()
                    .and_then(|key| key.get(10..).map(<[u8]>::to_vec)),
            ) {
                return refuse(format!("`{key}` is listed twice, under two ids"));
            }
        }
        Ok(())
    }

    /// Ids of the keys, as minisign prints them.
    pub fn ids(&self) -> BTreeSet<String> {
        self.keys.iter().filter_map(|key| key_id(key)).collect()
    }

    /// Whether enough of these keys signed that text. Every signature must be right and from one of these keys, or from one
    /// of `others` (the keys that come next, which may sign along).
    ///
    /// # Errors
    /// [`Refused::Signature`].
    pub fn verify(
        &self,
        text: &str,
        signatures: &Signatures,
        others: Option<&Self>,
    ) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Signature(why));
        let by_id = |set: &Self| -> BTreeMap<String, PublicKey> {
            let keys = set.keys.iter();
            keys.filter_map(|key| Some((key_id(key)?, parse_key(key)?)))
                .collect()
        };
        let ours = by_id(self);
        let theirs = others.map(by_id).unwrap_or_default();
        if signatures.0.len() > 2 * MOST {
            return refuse(format!("{} signatures are too many", signatures.0.len()));
        }
        let mut signed = 0;
        for (id, signature) in &signatures.0 {
            let Some(key) = ours.get(id).or_else(|| theirs.get(id)) else {
                return refuse(format!("key {id} is not known here"));
            };
            let canonical = normalized(signature).map_err(Refused::Signature)?;
            if canonical.0 != *id || canonical.1 != *signature {
                return refuse(format!(
                    "the signature of key {id} is not in canonical form"
                ));
            }
            let is_right = Signature::decode(signature)
                .is_ok_and(|signature| key.verify(text.as_bytes(), &signature, false).is_ok());
            if !is_right {
                return refuse(format!("the signature of key {id} is wrong"));
            }
            signed += usize::from(ours.contains_key(id));
        }
        if signed < self.threshold {
            return refuse(format!(
                "signed by {signed} of the {} keys that must sign",
                self.threshold
            ));
        }
        Ok(())
    }
}

impl Signatures {
    /// Adds what `minisign -S` wrote; a second signature of one key takes the place of the first.
    ///
    /// # Errors
    /// If it is no signature.
    pub fn add(&mut self, signature: &str) -> Result<(), String> {
        let (id, signature) = normalized(signature)?;
        self.0.insert(id, signature);
        Ok(())
    }

    /// Takes away those whose key has none of these ids: hosts refuse what a stranger signed, too. Says whose they were.
    pub fn retain(&mut self, ids: &BTreeSet<String>) -> Vec<String> {
        let strange = self.0.keys().filter(|id| !ids.contains(*id));
        let strange: Vec<String> = strange.cloned().collect();
        self.0.retain(|id, _| ids.contains(id));
        strange
    }

    /// Ids of the keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn parse_key(key: &str) -> Option<PublicKey> {
    PublicKey::from_base64(key).ok()
}

/// The id within a public key, as minisign prints it.
fn key_id(key: &str) -> Option<String> {
    let bytes = STANDARD.decode(key).ok()?;
    (bytes.len() == 2 + 8 + 32).then_some(())?;
    Some(id(bytes.get(2..10)?))
}

fn id(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in bytes.iter().rev() {
        let _ = write!(text, "{byte:02X}");
    }
    text
}

/// The id of its key, and a signature with nothing in it that is not signed: no other comment, no other line, no other way
/// to write the same bytes.
///
/// # Errors
/// If it is no signature of minisign, or one of the old kind that does not hash first.
pub fn normalized(signature: &str) -> Result<(String, String), String> {
    let mut lines = signature.lines();
    let mut next = || lines.next().ok_or("a signature of minisign has four lines");
    next()?;
    let first = STANDARD
        .decode(next()?.trim())
        .map_err(|error| format!("the signature is not base64: {error}"))?;
    if first.len() != SIGNATURE_BYTES || !first.starts_with(b"ED") {
        return Err("not a prehashed minisign signature".to_owned());
    }
    let trusted = next()?;
    if !trusted.starts_with("trusted comment: ") {
        return Err("the third line of a signature is its trusted comment".to_owned());
    }
    let global = STANDARD
        .decode(next()?.trim())
        .map_err(|error| format!("the signature of the comment is not base64: {error}"))?;
    let key = first.get(2..10).unwrap_or_default();
    let text = format!(
        "{COMMENT}\n{}\n{trusted}\n{}\n",
        STANDARD.encode(&first),
        STANDARD.encode(&global)
    );
    Ok((id(key), text))
}
