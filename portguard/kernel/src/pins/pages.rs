//! Bytes kept in the kernel: an array map of pages, pinned. They live exactly as long as the pins beside them.

use std::fs;
use std::path::Path;

use aya::maps::{Array, Map, MapData};

use crate::error::Context as _;

/// Bytes a map element holds.
const PAGE: usize = 4096;

/// Writes bytes into a map of its own, pinned at `path`; what was pinned there is replaced in one step.
///
/// # Errors
/// What the kernel refuses.
pub fn pin(path: &Path, text: &[u8]) -> crate::Result<()> {
    let mut bytes = u64::try_from(text.len())?.to_le_bytes().to_vec();
    bytes.extend_from_slice(text);
    let pages = bytes.chunks(PAGE);
    let count = u32::try_from(pages.len())?;
    let mut map = Array::<MapData, [u8; PAGE]>::create(count, 0)
        .with_context(|| format!("cannot create a map for `{}`", path.display()))?;
    for (chunk, index) in pages.zip(0..) {
        let mut page = [0; PAGE];
        for (to, from) in page.iter_mut().zip(chunk) {
            *to = *from;
        }
        map.set(index, page, 0)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    // Pinned under another name first: whoever reads meanwhile sees the old bytes or the new ones. bpffs has no dots.
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push("_new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove `{}`", new.display()));
        }
        _ => {}
    }
    map.pin(&new)
        .with_context(|| format!("cannot pin `{}`", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot pin `{}`", path.display()))
}

/// Reads what [`pin`] wrote.
///
/// # Errors
/// If there is none, or it is something else.
pub fn read(path: &Path) -> crate::Result<Vec<u8>> {
    let map =
        MapData::from_pin(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let map: Array<_, [u8; PAGE]> = Map::Array(map)
        .try_into()
        .with_context(|| format!("`{}` is something else", path.display()))?;
    let mut bytes = Vec::new();
    for page in map.iter() {
        bytes.extend_from_slice(&page?);
    }
    let (length, text) = bytes
        .split_first_chunk::<8>()
        .context("an empty description")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let text = text
        .get(..length)
        .context("a description that is cut short")?;
    Ok(text.to_vec())
}
