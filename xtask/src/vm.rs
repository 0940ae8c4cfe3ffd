//! vm
use crate::tally::Tally;
use anyhow::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct VmArgs {}

pub(crate) fn run(_args: &VmArgs) -> Result<()> {
    required().map(drop)
}
pub(crate) fn required() -> Result<Tally> {
    crate::setup::ensure(&crate::setup::VM)?;
    Ok(Tally::default())
}
