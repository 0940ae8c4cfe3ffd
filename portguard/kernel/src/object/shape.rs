//! Whether a pinned map still has the shape that this version expects: aya reuses pins without a look.

use std::path::Path;

use aya::maps::MapInfo;

/// What of a map must agree for its pin to be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Elements; `None` = whatever is there.
    pub max_entries: Option<u32>,
}

impl Shape {
    /// All differences between this expectation and the map pinned at `path`; none if there is no pin.
    pub fn differences(&self, name: &str, path: &Path) -> Vec<String> {
        let Ok(info) = MapInfo::from_pin(path) else {
            return Vec::new();
        };
        let mut found = vec![
            (
                "type",
                self.map_type,
                info.map_type().map_or(u32::MAX, |kind| kind as u32),
            ),
            ("key size", self.key_size, info.key_size()),
            ("value size", self.value_size, info.value_size()),
        ];
        if let Some(expected) = self.max_entries {
            found.push(("entries", expected, info.max_entries()));
        }
        found
            .into_iter()
            .filter(|(_, expected, there)| expected != there)
            .map(|(what, expected, there)| {
                format!("{name}: {what} is {there}, expected {expected}")
            })
            .collect()
    }
}
