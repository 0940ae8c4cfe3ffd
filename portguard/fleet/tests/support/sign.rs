//! Publishers: minisign's own implementation signs.

use std::collections::BTreeMap;

use minisign::KeyPair;
use portguard_fleet::Hash;
use portguard_fleet::release::{
    Gate, HostEntry, KeySet, Manifest, Object, Plan, Release, SCHEMA, Shard, Signatures, Wave,
    pack, pack_small, shards,
};

/// Who signs.
pub(crate) struct Signers(pub(crate) Vec<KeyPair>);

impl Signers {
    pub(crate) fn new(count: usize) -> Self {
        let pairs = (0..count).map(|_| KeyPair::generate_unencrypted_keypair().unwrap());
        Self(pairs.collect())
    }

    pub(crate) fn keys(&self, version: u64, threshold: usize) -> KeySet {
        KeySet {
            version,
            threshold,
            keys: self.0.iter().map(|pair| pair.pk.to_base64()).collect(),
        }
    }

    pub(crate) fn sign(&self, manifest: &Manifest, by: &[usize]) -> Release {
        let manifest = manifest.canonical();
        let mut signatures = Signatures::default();
        for index in by {
            signatures
                .add(&signature(&self.0[*index], &manifest))
                .unwrap();
        }
        Release {
            manifest,
            signatures,
        }
    }
}

pub(crate) fn signature(pair: &KeyPair, text: &str) -> String {
    minisign::sign(
        Some(&pair.pk),
        &pair.sk,
        text.as_bytes(),
        Some("a comment"),
        Some("another"),
    )
    .unwrap()
    .to_string()
}

/// A release with its chunks.
pub(crate) struct Made {
    pub(crate) manifest: Manifest,
    pub(crate) chunks: Vec<(Hash, Vec<u8>)>,
}

/// One host, one wave, one document.
pub(crate) fn made(serial: u64, keys: KeySet, hosts: Shard) -> Made {
    let site = pack(format!("mode = \"enforce\" # {serial}\n").as_bytes()).unwrap();
    let mut chunks = site.chunks;
    let mut pieces = Vec::new();
    for shard in shards(hosts) {
        let (hash, chunk) = pack_small(&serde_json::to_vec(&shard).unwrap()).unwrap();
        pieces.push(hash.clone());
        chunks.push((hash, chunk));
    }
    let objects: BTreeMap<String, Object> = [("site.toml".to_owned(), site.object)].into();
    let manifest = Manifest {
        schema: SCHEMA,
        fleet: "test".to_owned(),
        serial,
        previous: serial.checked_sub(1).filter(|previous| *previous > 0),
        rollback_to: None,
        rollback_within: 7 * 86_400,
        issued: 1000,
        valid_until: u64::MAX,
        least_tool: "0.1.0".to_owned(),
        keys,
        key_changes: Vec::new(),
        plan: Plan {
            wave: vec![Wave::new("all", "*")],
            gate: Gate::default(),
        },
        objects,
        hosts: pieces,
    };
    Made { manifest, chunks }
}

pub(crate) fn entry(digest: &str) -> HostEntry {
    HostEntry {
        roles: vec!["thoughtspot/node".to_owned()],
        zone: String::new(),
        labels: BTreeMap::new(),
        key: None,
        digests: [("eth0".to_owned(), digest.to_owned())].into(),
        enforce: true,
        wave: 0,
        turn: 0,
    }
}
