//! `cargo xtask nightly`: the long runs. More frames through kernel and host, more damage, every kernel.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use portguard_harness::frames::Generator;

use crate::shell::{capture, result, say, show, step};
use crate::tally::Tally;
use crate::test::{TestArgs, all};
use crate::workspace::{cargo, root, target};
use crate::{setup, vm};

/// Frames through both programs of every policy.
const FRAMES: u64 = 1_000_000;

/// Frames that the fuzzer begins with: several of each class.
const SEEDS: usize = 500;

/// Instruments code the way that libFuzzer reads (what cargo-fuzz passes on, but for the sanitizers, which take a nightly
/// compiler and find nothing where there is no `unsafe`).
const INSTRUMENTED: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

#[derive(Debug, clap::Args)]
pub(crate) struct NightlyArgs {
    /// Frames for the comparison of kernel and host
    #[arg(long, value_name = "N", default_value_t = FRAMES)]
    frames: u64,
    /// Seconds for each fuzzer
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    /// Leave the other kernels out
    #[arg(long)]
    no_vm: bool,
}

pub(crate) fn run(args: &NightlyArgs) -> Result<()> {
    let begun = Instant::now();
    setup::ensure(&setup::TEST)?;
    let mut tally = tests("parity", &[("PORTGUARD_PARITY_FRAMES", args.frames)])?;
    note("parity", begun);
    tally += tests("fuzzed", &[("PORTGUARD_FUZZ_SECONDS", args.seconds)])?;
    note("damage", begun);
    fuzz(args.seconds)?;
    note("fuzzer", begun);
    if !args.no_vm {
        tally += vm::everything()?;
        note("vm-test", begun);
    }
    result(tally);
    if !tally.is_good() {
        bail!("not every check passed");
    }
    Ok(())
}

/// Tests by name, shown in full: what they met is what a long run is for.
fn tests(name: &str, numbers: &[(&str, u64)]) -> Result<Tally> {
    let variables = numbers
        .iter()
        .map(|(name, number)| ((*name).to_owned(), number.to_string()))
        .collect();
    all(
        &TestArgs {
            filter: vec![name.to_owned()],
            package: ["portguard", "portguard-common"]
                .map(str::to_owned)
                .to_vec(),
            nocapture: true,
            release: false,
        },
        variables,
    )
}

/// Builds the fuzzer and runs it; what it finds out stays in its corpus for the next night.
fn fuzz(seconds: u64) -> Result<()> {
    let package = root().join("tests/fuzz");
    let built = target().join("fuzz");
    let corpus = package.join("corpus/parse_verdict");
    let artifacts = package.join("artifacts/parse_verdict/");
    // Naming the target keeps build scripts, which are no fuzzers, from being instrumented.
    let host = host()?;
    let mut build = cargo();
    build
        .args(["build", "--release", "--target", &host, "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &built)
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f"));
    step("building the fuzzer", &mut build)?;
    let programs = built.join(host).join("release");
    seed(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    let prefix = format!("-artifact_prefix={}/", artifacts.display());
    let time = format!("-max_total_time={seconds}");
    show(
        Command::new(programs.join("parse_verdict"))
            .args([&time, "-max_len=2048", "-timeout=5", "-print_final_stats=1"])
            .arg(prefix)
            .arg(&corpus),
    )
    .context("the fuzzer found something; the input is among the artifacts")
}

/// Writes frames of every class that the tests tell apart, for the fuzzer to begin with.
fn seed(corpus: &Path) -> Result<()> {
    std::fs::create_dir_all(corpus)?;
    for (number, (_, frame)) in Generator::new(1).take(SEEDS).enumerate() {
        // Whole, and all of it in place: the two bytes that the fuzzed function takes before the frame.
        let input = [&[255, 255], frame.as_slice()].concat();
        let file = corpus.join(format!("seed-{number}"));
        std::fs::write(&file, input)
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let said = capture(cargo().args(["--version", "--verbose"]))?;
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("cargo does not say its host")?.to_owned())
}

fn note(what: &str, begun: Instant) {
    say(format_args!(
        "nightly: {what} done, {} s since the start",
        begun.elapsed().as_secs()
    ));
}
