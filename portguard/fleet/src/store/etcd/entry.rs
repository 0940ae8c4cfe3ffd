//! Keys and values as etcd has them.

use super::proto;
use crate::store::{Compare, Entry, MAX_VALUE, StoreError};

/// Everything of ours is below.
pub(super) const ROOT: &str = "/portguard/v1/";

pub(super) fn full(key: &str) -> Vec<u8> {
    format!("{ROOT}{key}").into_bytes()
}

/// The first key that does not begin like this.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
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
pub(super) fn bounded(mut kv: proto::KeyValue) -> Entry {
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

pub(super) fn entry(kv: proto::KeyValue) -> Result<Entry, StoreError> {
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

pub(super) fn compare(compare: &Compare) -> proto::Compare {
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
