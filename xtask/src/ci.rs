//! `cargo xtask ci`: what CI runs, in the same order. The first that fails ends it.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::shell::{result, say};
use crate::tally::Tally;
use crate::{demo, lint, test, vm};

pub(crate) fn run() -> Result<()> {
    let begun = Instant::now();
    lint::run()?;
    note("lint", begun);
    let mut tally = test::everything()?;
    note("test", begun);
    if tally.is_good() {
        demo::check()?;
        note("demo", begun);
        tally += vm::required()?;
        note("vm-test", begun);
    }
    result(tally);
    finish(tally)
}

fn note(what: &str, begun: Instant) {
    say(format_args!(
        "ci: {what} done, {} s since the start",
        begun.elapsed().as_secs()
    ));
}

fn finish(tally: Tally) -> Result<()> {
    if !tally.is_good() {
        bail!("not every check passed");
    }
    Ok(())
}
