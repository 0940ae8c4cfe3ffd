//! The developer's one door: `cargo xtask setup`, `demo`, `test`, `lint`, `vm-test`, `bench`, `nightly`, `soak`,
//! `package`, `release`, `docs`, `ci`.
//!
//! Every verb begins with `setup`, which costs nothing when all is there. Exit codes are those of `portguard`: 0 done,
//! 1 something failed, 2 wrong usage, 3 the system lacks something that is named.
#![expect(
    clippy::disallowed_methods,
    reason = "its own words, on whatever terminal"
)]

mod arch;
mod bench;
mod ci;
mod demo;
mod docs;
mod links;
mod lint;
mod nightly;
mod package;
mod release;
mod setup;
mod shell;
mod shipped;
mod soak;
mod tally;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shell::{Missing, say};

/// Builds, shows and checks portguard.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Finds or installs what builds the eBPF programs; every other verb calls it
    Setup(setup::SetupArgs),
    /// Shows a vendor's role guarding an interface, in private network namespaces (root)
    Demo(demo::DemoArgs),
    /// Runs all tests on this kernel (root)
    Test(test::TestArgs),
    /// Checks format and lints, of the host's code and of the kernel's
    Lint,
    /// Boots other kernels under software emulation and checks the programs there
    VmTest(vm::VmArgs),
    /// Runs what takes long: a million frames, the fuzzers, every kernel (root)
    Nightly(nightly::NightlyArgs),
    /// Guards a host for as long as one likes, with everything that changes a guard in turns (root)
    Soak(soak::SoakArgs),
    /// Builds .deb and .rpm, the same bytes each time, and checks them
    Package(package::PackageArgs),
    /// Builds what is published: packages, image, checksums, bill of materials, apt repository
    Release(release::ReleaseArgs),
    /// Builds the documentation as a site
    Docs(docs::DocsArgs),
    /// Measures what the programs cost on this machine, beside others (root)
    Bench(bench::BenchArgs),
    /// Runs what CI runs, in the same order: lint, test, vm-test
    Ci,
    /// Listens on TCP ports, for `bench --verbs`
    #[command(hide = true)]
    Listen(demo::verbs::ListenArgs),
}

fn main() -> ExitCode {
    let done = match &Cli::parse().verb {
        Verb::Setup(args) => setup::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Lint => lint::run(),
        Verb::VmTest(args) => vm::run(args),
        Verb::Nightly(args) => nightly::run(args),
        Verb::Soak(args) => soak::run(args),
        Verb::Package(args) => package::run(args),
        Verb::Release(args) => release::run(args),
        Verb::Docs(args) => docs::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Ci => ci::run(),
        Verb::Listen(args) => demo::verbs::listen(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            let is_missing = error.downcast_ref::<Missing>().is_some();
            ExitCode::from(if is_missing { 3 } else { 1 })
        }
    }
}
