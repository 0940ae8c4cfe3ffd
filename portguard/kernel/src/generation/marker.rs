//! Two attachments cannot be replaced in one step: a mark stands while a tool is between them.

use std::fs;
use std::io::ErrorKind;

use crate::error::Context as _;
use crate::pins::bpffs::{self, Layout, cannot_write, remove};

/// Marks that the attachments are about to change.
///
/// # Errors
/// If bpffs takes no directory; nothing has changed then.
pub(crate) fn begin(layout: &Layout) -> crate::Result<()> {
    match fs::create_dir(layout.swapping()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(cannot_write(error, &layout.swapping()))
        }
        _ => Ok(()),
    }
}

/// Both attachments are of one generation.
///
/// # Errors
/// If the mark cannot be removed.
pub(crate) fn end(layout: &Layout) -> crate::Result<()> {
    remove(&layout.swapping())
        .with_context(|| format!("cannot remove `{}`", layout.swapping().display()))
}

/// Whether some guard of this network namespace has the mark: a tool is at work, or it died at it.
pub(crate) fn is_any_open() -> bool {
    bpffs::layouts_here()
        .iter()
        .any(|layout| layout.swapping().exists())
}
