//! A generation's object and the twin that it is tested with, loaded together.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::readback;
use super::selftest::{Twin, Unverified};
use crate::image::Image;
use crate::object::{self, HostFacts, Loaded, Pins, TABLES};

/// Both, filled, verified and read back.
#[derive(Debug)]
pub(super) struct Pair {
    /// What is to be put in force.
    pub(super) loaded: Loaded,
    /// What frames are run through.
    pub(super) twin: Twin,
}

/// Loads both. `directory` is the generation's own, on bpffs: there the twin finds the tables.
///
/// # Errors
/// What the kernel refused, and tables that do not hold what was written.
pub(super) fn load(
    image: &Image,
    host: &HostFacts,
    shared: &Path,
    directory: &Path,
) -> anyhow::Result<Pair> {
    object::as_kernel_allows(|frags| {
        let pins = Pins {
            shared: Some(shared),
            tables: Some(directory),
        };
        let mut opened = object::open(image, host, pins, frags)?;
        let mut twin = Unverified::open(image, host, directory, frags)?;
        for name in TABLES {
            let path = directory.join(name);
            fs::remove_file(&path)
                .with_context(|| format!("cannot remove `{}`", path.display()))?;
        }
        let mut tables = opened.tables()?;
        let facts = *opened.facts();
        object::verify(&mut [&mut opened, &mut twin.opened], || {
            tables.fill(image)?;
            readback::compare(&tables, image, &facts)
        })?;
        Ok(Pair {
            loaded: opened.into_loaded(),
            twin: twin.into_twin(),
        })
    })
}
