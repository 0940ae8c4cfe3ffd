//! `cargo xtask soak`: one guard for hours, while traffic goes on and everything that changes a guard happens in turns.

use anyhow::{Result, bail};

use crate::shell::result;
use crate::test::{TestArgs, all};
use crate::vm;

#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// On every kernel of `vm-test`, in emulated machines: so long on each, two at a time
    #[arg(long)]
    kernels: bool,
}

pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    let seconds = args.minutes * 60;
    let tally = if args.kernels {
        vm::soak(seconds)?
    } else {
        soak(seconds)?
    };
    result(tally);
    if !tally.is_good() {
        bail!("it did not hold");
    }
    Ok(())
}

/// The test of that name, for so many seconds.
pub(crate) fn soak(seconds: u64) -> Result<crate::tally::Tally> {
    let args = TestArgs {
        filter: vec!["nothing_wears_a_guard_out".to_owned()],
        package: vec!["portguard".to_owned()],
        nocapture: true,
        ignored: true,
        release: true,
    };
    let variable = ("PORTGUARD_SOAK_SECONDS".to_owned(), seconds.to_string());
    all(&args, vec![variable])
}
