//! Whatever the bytes, the loader neither panics nor says something without a place.

use proptest::prelude::*;

use super::{HEAD, ROW};
use crate::catalog::load_bytes;
use crate::diagnostic::{Diagnostic, Rejected};

/// A catalog file with some bytes replaced, or a bit of text moved about.
fn damaged_catalog() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            0..12usize,
            "\\PC{0,6}|[\\[\\]{}=\",.\n0-9]{0,4}",
        ),
        1..6,
    );
    edits.prop_map(|edits| {
        let mut bytes = format!("{HEAD}{ROW}").into_bytes();
        for (at, length, text) in edits {
            let start = at.index(bytes.len() + 1);
            let end = bytes.len().min(start + length);
            bytes.splice(start..end, text.into_bytes());
        }
        bytes
    })
}

fn is_placed(found: &Diagnostic) -> bool {
    found
        .location
        .as_deref()
        .is_some_and(|location| location.starts_with("shop.toml"))
        && !found.message.contains(char::is_control)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_read_or_refused_with_a_place(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Err(Rejected(found)) = load_bytes("shop.toml", &bytes) {
            prop_assert!(!found.is_empty() && found.iter().all(is_placed), "{found:?}");
        }
    }

    #[test]
    fn damaged_files_are_read_or_refused_with_a_place(bytes in damaged_catalog()) {
        if let Err(Rejected(found)) = load_bytes("shop.toml", &bytes) {
            prop_assert!(!found.is_empty() && found.iter().all(is_placed), "{found:?}");
        }
    }
}
