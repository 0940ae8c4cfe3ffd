//! `cargo xtask demo`.

use anyhow::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_args: &DemoArgs) -> Result<()> {
    crate::setup::ensure(&[])
}
