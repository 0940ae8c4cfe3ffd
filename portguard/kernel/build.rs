//! Builds the eBPF object and leaves it where `object.rs` embeds it from.

use anyhow::{Context as _, anyhow};
use aya_build::{Package, Toolchain, build_ebpf};

/// Name under which `cargo xtask setup` links a toolchain that can build for BPF.
const TOOLCHAIN: &str = "portguard-bpf";

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=PORTGUARD_BPF_FEATURES");
    let root = std::env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let root_dir = format!("{root}/../../portguard-ebpf");
    let trace = std::env::var("PORTGUARD_BPF_FEATURES").is_ok_and(|value| value == "trace");
    let features: &[&str] = if trace { &["bpf", "trace"] } else { &["bpf"] };
    let package = Package {
        name: "portguard-ebpf",
        root_dir: &root_dir,
        no_default_features: false,
        features,
    };
    build_ebpf([package], Toolchain::Custom(TOOLCHAIN)).map_err(|error| {
        anyhow!("{error:#}\n\nhint: `cargo xtask setup` installs what builds the eBPF programs")
    })
}
