//! Builds the eBPF objects that the measurements need; those of portguard itself come with its library.

use anyhow::{Context as _, anyhow};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    let root = std::env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let root_dir = format!("{root}/ebpf");
    let package = Package {
        name: "portguard-bench-ebpf",
        root_dir: &root_dir,
        no_default_features: false,
        features: &["bpf"],
    };
    // The toolchain's name is the one of `portguard/build.rs`.
    build_ebpf([package], Toolchain::Custom("portguard-bpf")).map_err(|error| {
        anyhow!("{error:#}\n\nhint: `cargo xtask setup` installs what builds the eBPF programs")
    })
}
