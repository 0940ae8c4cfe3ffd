//! Documents in chunks: compressed, named by their hash, and never larger than was signed.

use serde::{Deserialize, Serialize};

use super::Refused;
use crate::Hash;

/// The largest chunk, compressed: well below what etcd takes in one request.
pub const CHUNK: usize = 512 << 10;
/// How much of a document goes into a chunk: also what does not compress stays below [`CHUNK`].
const PIECE: usize = CHUNK - (8 << 10);
/// The largest document: a site of sixteen MiB, and as much again.
pub const MAX_OBJECT: u64 = 32 << 20;
/// Beyond 12 the time doubles and the size hardly changes.
const LEVEL: i32 = 12;

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Of the whole, uncompressed.
    pub sha256: Hash,
    /// Of the whole, uncompressed.
    pub bytes: u64,
    /// Of each compressed chunk, in order.
    pub chunks: Vec<Hash>,
}

/// A document with its chunks.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What the manifest says of it.
    pub object: Object,
    /// What the store has.
    pub chunks: Vec<(Hash, Vec<u8>)>,
}

/// Packs a document.
///
/// # Errors
/// [`Refused::Object`] if it is too large.
pub fn pack(bytes: &[u8]) -> Result<Packed, Refused> {
    let length = bytes.len() as u64;
    if length > MAX_OBJECT {
        return Err(Refused::Object(format!(
            "{length} bytes are more than {MAX_OBJECT}"
        )));
    }
    let mut chunks = Vec::new();
    for piece in bytes.chunks(PIECE) {
        chunks.push(compress(piece)?);
    }
    Ok(Packed {
        object: Object {
            sha256: Hash::of(bytes),
            bytes: length,
            chunks: chunks.iter().map(|(hash, _)| hash.clone()).collect(),
        },
        chunks,
    })
}

/// Packs what fits into one chunk, which is all that is to be known of it.
///
/// # Errors
/// [`Refused::Object`] if it does not fit.
pub fn pack_small(bytes: &[u8]) -> Result<(Hash, Vec<u8>), Refused> {
    if bytes.len() > PIECE {
        return Err(Refused::Object(format!(
            "{} bytes are more than a chunk holds",
            bytes.len()
        )));
    }
    compress(bytes)
}

fn compress(piece: &[u8]) -> Result<(Hash, Vec<u8>), Refused> {
    let chunk = zstd::bulk::compress(piece, LEVEL)
        .map_err(|error| Refused::Object(format!("cannot be compressed: {error}")))?;
    Ok((Hash::of(&chunk), chunk))
}

/// Puts a document together from chunks in order. What does not have the signed hash is never given to the decompressor,
/// and that writes at most as much as was signed.
///
/// # Errors
/// [`Refused::Object`], saying which chunk.
pub fn unpack(object: &Object, chunks: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    if object.bytes > MAX_OBJECT {
        return Err(Refused::Object(format!(
            "{} bytes are more than {MAX_OBJECT}",
            object.bytes
        )));
    }
    let length = usize::try_from(object.bytes).unwrap_or(usize::MAX);
    if object.chunks.len() != length.div_ceil(PIECE) || chunks.len() != object.chunks.len() {
        return Err(Refused::Object(format!(
            "{} chunks for {length} bytes, {} are named",
            chunks.len(),
            object.chunks.len()
        )));
    }
    let mut whole = Vec::with_capacity(length);
    for (index, (hash, chunk)) in object.chunks.iter().zip(chunks).enumerate() {
        let piece = decompress(hash, chunk)
            .map_err(|error| Refused::Object(format!("chunk {index}: {error}")))?;
        whole.extend_from_slice(&piece);
        if whole.len() > length {
            return Err(Refused::Object(format!("chunk {index} is too long")));
        }
    }
    if whole.len() != length || Hash::of(&whole) != object.sha256 {
        return Err(Refused::Object("the whole has another hash".to_owned()));
    }
    Ok(whole)
}

/// Reads what [`pack_small`] made.
///
/// # Errors
/// [`Refused::Object`].
pub fn unpack_small(hash: &Hash, chunk: &[u8]) -> Result<Vec<u8>, Refused> {
    decompress(hash, chunk).map_err(Refused::Object)
}

fn decompress(hash: &Hash, chunk: &[u8]) -> Result<Vec<u8>, String> {
    if chunk.len() > CHUNK {
        return Err(format!("{} bytes are more than {CHUNK}", chunk.len()));
    }
    if Hash::of(chunk) != *hash {
        return Err(format!("does not have the hash {hash}"));
    }
    zstd::bulk::decompress(chunk, PIECE).map_err(|error| error.to_string())
}
