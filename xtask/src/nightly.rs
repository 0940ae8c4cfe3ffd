//! `cargo xtask nightly`: the long runs. More frames through kernel and host, more damage, every kernel.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use portguard_harness::frames::Generator;

use crate::shell::{capture, result, say, show, step};
use crate::tally::Tally;
use crate::test::{TestArgs, all};
use crate::workspace::{cargo, root, target};
use crate::{setup, soak, vm};

/// Frames through both programs of every policy.
const FRAMES: u64 = 1_000_000;

/// Hosts whose plan is made, that watch one etcd, and that are rolled out.
const HOSTS: u64 = 10_000;

/// Seconds of one guard.
const SOAK: u64 = 3600;

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
    /// Hosts of the fleet
    #[arg(long, value_name = "N", default_value_t = HOSTS)]
    hosts: u64,
    /// Leave the other kernels out
    #[arg(long)]
    no_vm: bool,
    /// Run this part only
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Part>,
}

/// What a night has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Frames through kernel and host
    Parity,
    /// Damaged frames through kernel and host
    Damage,
    /// Every fuzzer
    Fuzzer,
    /// What grows with the number of hosts
    Fleet,
    /// Whole systems, and every change of every row
    Documents,
    /// One guard for an hour
    Soak,
    /// Every kernel
    Vm,
}

pub(crate) fn run(args: &NightlyArgs) -> Result<()> {
    let begun = Instant::now();
    setup::ensure(&setup::TEST)?;
    let mut tally = Tally::default();
    for part in Part::value_variants() {
        let is_wanted = match args.only {
            Some(only) => only == *part,
            None => *part != Part::Vm || !args.no_vm,
        };
        if is_wanted {
            tally += part.run(args)?;
            note(*part, begun);
        }
    }
    result(tally);
    if !tally.is_good() {
        bail!("not every check passed");
    }
    Ok(())
}

impl Part {
    fn run(self, args: &NightlyArgs) -> Result<Tally> {
        match self {
            Self::Parity => tests("parity", &[("PORTGUARD_PARITY_FRAMES", args.frames)]),
            Self::Damage => tests("fuzzed", &[("PORTGUARD_FUZZ_SECONDS", args.seconds)]),
            Self::Fuzzer => fuzz(args.seconds),
            Self::Fleet => fleet(args.hosts),
            Self::Documents => documents(),
            Self::Soak => soak::soak(SOAK),
            Self::Vm => vm::everything(),
        }
    }
}

/// Tests by name, shown in full: what they met is what a long run is for.
fn tests(name: &str, numbers: &[(&str, u64)]) -> Result<Tally> {
    named(&[name], &["portguard", "portguard-common"], numbers, false)
}

/// What grows with the number of hosts, with optimisation, as it is used.
fn fleet(hosts: u64) -> Result<Tally> {
    named(
        &[
            "a_plan_of_many_hosts",
            "_hosts_are_rolled_out",
            "_watches_of_etcd",
            "statuses_of_hosts_go_to_etcd",
            "_in_force_on_many_namespaces",
        ],
        &["portguard", "portguard-fleet"],
        &[
            ("PORTGUARD_FLEET_HOSTS", hosts),
            ("PORTGUARD_FLEET_NAMESPACES", (hosts / 100).max(1)),
        ],
        true,
    )
}

/// Whole systems over real sockets, and every change of every row.
fn documents() -> Result<Tally> {
    let names = ["opens_what_it_prints", "every_change_of_the_catalog"];
    named(&names, &["portguard", "portguard-policy"], &[], true)
}

fn named(
    names: &[&str],
    packages: &[&str],
    numbers: &[(&str, u64)],
    release: bool,
) -> Result<Tally> {
    let own = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    let variables = numbers
        .iter()
        .map(|(name, number)| ((*name).to_owned(), number.to_string()))
        .collect();
    all(
        &TestArgs {
            filter: own(names),
            package: own(packages),
            nocapture: true,
            ignored: true,
            release,
        },
        variables,
    )
}

/// Builds the fuzzers and runs each; what one finds out stays in its corpus for the next night.
fn fuzz(seconds: u64) -> Result<Tally> {
    let package = root().join("tests/fuzz");
    let built = target().join("fuzz");
    // Naming the target keeps build scripts, which are no fuzzers, from being instrumented.
    let host = host()?;
    let mut build = cargo();
    build
        .args(["build", "--release", "--target", &host, "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &built)
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f"));
    step("building the fuzzers", &mut build)?;
    let programs = built.join(host).join("release");
    let mut tally = Tally::default();
    for fuzzer in &FUZZERS {
        fuzzer.run(&package, &programs, seconds)?;
        tally.passed += 1;
    }
    Ok(tally)
}

/// What a fuzzer begins with.
#[derive(Debug, Clone, Copy)]
enum Seeds {
    /// Frames of every class that the tests tell apart.
    Frames,
    /// The same, each as a capture of one frame.
    Captures,
    /// The files of a folder of the repository that end so.
    Files(&'static str, &'static str),
}

#[derive(Debug)]
struct Fuzzer {
    name: &'static str,
    seeds: Seeds,
    /// Longest input, bytes.
    longest: u32,
}

const FUZZERS: [Fuzzer; 6] = [
    Fuzzer {
        name: "parse_verdict",
        seeds: Seeds::Frames,
        longest: 2048,
    },
    Fuzzer {
        name: "site",
        seeds: Seeds::Files("docs", ".toml"),
        longest: 8192,
    },
    Fuzzer {
        name: "catalog",
        seeds: Seeds::Files("portguard/catalog", ".toml"),
        longest: 65_536,
    },
    Fuzzer {
        name: "capture",
        seeds: Seeds::Captures,
        longest: 4096,
    },
    Fuzzer {
        name: "nft",
        seeds: Seeds::Files("tests/fuzz/seeds/nft", ".json"),
        longest: 8192,
    },
    Fuzzer {
        name: "iptables",
        seeds: Seeds::Files("tests/fuzz/seeds/iptables", ".rules"),
        longest: 8192,
    },
];

impl Fuzzer {
    fn run(&self, package: &Path, programs: &Path, seconds: u64) -> Result<()> {
        let corpus = package.join("corpus").join(self.name);
        let artifacts = package.join("artifacts").join(self.name);
        std::fs::create_dir_all(&artifacts)?;
        std::fs::create_dir_all(&corpus)?;
        self.seed(&corpus)?;
        say(format_args!("fuzzing {} for {seconds} s", self.name));
        let mut command = Command::new(programs.join(self.name));
        command
            .args(["-timeout=5", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", self.longest))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(&corpus);
        show(&mut command).with_context(|| {
            let name = self.name;
            format!("the fuzzer `{name}` found something; the input is among the artifacts")
        })
    }

    fn seed(&self, corpus: &Path) -> Result<()> {
        let put = |name: &str, bytes: &[u8]| {
            let file = corpus.join(format!("seed-{name}"));
            std::fs::write(&file, bytes)
                .with_context(|| format!("cannot write `{}`", file.display()))
        };
        match self.seeds {
            Seeds::Frames => {
                for (number, (_, frame)) in Generator::new(1).take(SEEDS).enumerate() {
                    // Whole, and all of it in place: the two bytes that the fuzzed function takes before the frame.
                    let input = [&[255, 255], frame.as_slice()].concat();
                    put(&number.to_string(), &input)?;
                }
            }
            Seeds::Captures => {
                for (number, (_, frame)) in Generator::new(1).take(SEEDS).enumerate() {
                    put(&number.to_string(), &capture_of(&frame))?;
                }
            }
            Seeds::Files(folder, end) => {
                for entry in std::fs::read_dir(root().join(folder))? {
                    let path = entry?.path();
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    if name.ends_with(end) {
                        put(&name, &std::fs::read(&path)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A pcap file of one Ethernet frame: `pcap-savefile(5)`.
fn capture_of(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    // Magic, version 2.4, time zone and precision, longest frame, Ethernet; then time and both lengths of the record.
    let head = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    let words = head.into_iter().chain([0, 0, length, length]);
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.extend_from_slice(frame);
    bytes
}

/// The triple of this machine.
fn host() -> Result<String> {
    let said = capture(cargo().args(["--version", "--verbose"]))?;
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("cargo does not say its host")?.to_owned())
}

fn note(part: Part, begun: Instant) {
    let name = part.to_possible_value();
    say(format_args!(
        "nightly: {} done, {} s since the start",
        name.as_ref().map_or("", |name| name.get_name()),
        begun.elapsed().as_secs()
    ));
}
