//! `cargo xtask bench`: what portguard costs on this machine. The measuring is `portguard-bench`, built with optimisation.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::demo;
use crate::setup;
use crate::shell::{Missing, show, step};
use crate::shipped::Shipped;
use crate::workspace::{cargo, is_root, root, target, which};

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// How long verbs take, instead of packets; writes `docs/performance/verbs.md`
    #[arg(long)]
    verbs: bool,
    /// With `--verbs`: the `portguard` to measure, built already
    #[arg(long, value_name = "FILE", requires = "verbs")]
    program: Option<PathBuf>,
    /// `--help` says them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if args.verbs {
        return verbs(args);
    }
    setup::ensure(&setup::BENCH)?;
    step(
        "building with optimisation",
        cargo().args(["build", "--release", "--package", "portguard-bench"]),
    )?;
    let program = target().join("release/portguard-bench");
    let mut command = if is_root() {
        Command::new(program)
    } else if which("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    } else {
        return Err(Missing::error(
            "measuring loads eBPF programs and makes network namespaces of its own, which takes root",
            "as root: cargo xtask bench",
        ));
    };
    show(command.args(&args.args).current_dir(root()))
}

fn verbs(args: &BenchArgs) -> Result<()> {
    if !is_root() {
        return Err(Missing::error(
            "verbs are timed on a guarded host, which takes root",
            "as root: cargo xtask bench --verbs",
        ));
    }
    let shipped = match &args.program {
        Some(program) => Shipped::given(program)?,
        None => Shipped::build()?,
    };
    let page = root().join("docs/performance/verbs.md");
    demo::verbs::measure(&shipped.program, &page)
}
