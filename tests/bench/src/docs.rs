//! `docs/performance.md` and its pictures, written from a run.

mod bars;
mod curves;
mod paint;
mod tables;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::results::Run;

/// The page, with places for what a run fills in.
const TEMPLATE: &str = include_str!("../performance.md");

/// Writes the page and the pictures of a run that measured everything.
pub(crate) fn write(run: &Run, docs: &Path) -> Result<()> {
    ensure!(
        !run.costs.is_empty() && !run.live.is_empty() && !run.control.is_empty(),
        "the page needs a whole run: without `--only`"
    );
    let pictures = docs.join("performance");
    fs::create_dir_all(&pictures)
        .with_context(|| format!("cannot make `{}`", pictures.display()))?;
    bars::costs(run, &pictures.join("classes.svg")).context("the picture of packet classes")?;
    bars::live(run, &pictures.join("live.svg")).context("the picture of live rates")?;
    curves::packets(run, &pictures.join("growth.svg")).context("the picture of growth")?;
    curves::waits(run, &pictures.join("waits.svg")).context("the picture of waits")?;
    let mut page = TEMPLATE.to_owned();
    for (place, text) in tables::all(run) {
        let mark = format!("<!-- {place} -->");
        ensure!(page.contains(&mark), "the template has no place `{place}`");
        page = page.replace(&mark, text.trim_end());
    }
    ensure!(
        !page.contains("<!-- "),
        "a place of the template stays empty"
    );
    let path = docs.join("performance.md");
    fs::write(&path, page).with_context(|| format!("cannot write `{}`", path.display()))
}
