//! The `portguard` that is shipped: one static program, the same bytes in whatever folder it is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::setup;
use crate::shell::{capture, step};
use crate::workspace::{cargo, home, root, target};

/// A program to ship.
#[derive(Debug)]
pub(crate) struct Shipped {
    pub(crate) arch: Arch,
    pub(crate) program: PathBuf,
    /// The same for this machine, to ask it for its pages and its version.
    pub(crate) runs: PathBuf,
}

impl Shipped {
    /// One that was built already, for this machine.
    pub(crate) fn given(program: &Path) -> Result<Self> {
        Ok(Self {
            arch: Arch::here()?,
            program: program.to_owned(),
            runs: program.to_owned(),
        })
    }

    /// Builds it for this machine.
    pub(crate) fn build() -> Result<Self> {
        Self::given(&build(Arch::here()?)?)
    }

    /// Builds the same for aarch64, by Debian's cross compiler.
    pub(crate) fn for_aarch64(&self) -> Result<Self> {
        Ok(Self {
            arch: Arch::Aarch64,
            program: build(Arch::Aarch64)?,
            runs: self.runs.clone(),
        })
    }
}

/// Builds it.
fn build(arch: Arch) -> Result<PathBuf> {
    let what = format!("building the static portguard for {}", arch.name());
    Ok(compile(arch, Profile::Release, &["portguard"], &what)?.join("portguard"))
}

/// Builds programs to be tried on another architecture, and says in which folder they are.
pub(crate) fn for_guest(arch: Arch, packages: &[&str]) -> Result<PathBuf> {
    let what = format!("building the programs for {}", arch.name());
    compile(arch, Profile::Debug, packages, &what)
}

/// How a program is built.
#[derive(Debug, Clone, Copy)]
enum Profile {
    Debug,
    Release,
}

/// Builds programs into the folder that is returned. Static, so that they run on any distribution and in an empty container: what
/// they ask of name services they ask themselves.
fn compile(arch: Arch, profile: Profile, packages: &[&str], what: &str) -> Result<PathBuf> {
    setup::ensure(&[])?;
    let triple = arch.triple();
    let mut command = cargo();
    let mut linker = None;
    if arch != Arch::here()? {
        let sysroot = setup::cross::ensure()?;
        command = setup::bpf_cargo();
        let gcc = format!("{}-linux-gnu-gcc", arch.name());
        command
            .env("RUSTC", setup::bpf_rustc()?)
            .env("PORTGUARD_CROSS", &triple)
            .env("PORTGUARD_SYSROOT", sysroot)
            .env(format!("CC_{}", triple.replace('-', "_")), &gcc);
        linker = Some(gcc);
    }
    command
        .args(arguments(profile, packages, &triple, linker.as_deref()))
        .env("RUSTC_WRAPPER", root().join("xtask/rustc-remap.sh"))
        .env("PORTGUARD_ROOT", root())
        .env("PORTGUARD_CARGO_HOME", home("CARGO_HOME", ".cargo"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    step(what, &mut command)?;
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    Ok(target().join(triple).join(folder))
}

/// What cargo is asked for. The subcommand comes first: of each table, cargo takes what `--config` says after it, and forgets what
/// `--config` said before.
fn arguments(
    profile: Profile,
    packages: &[&str],
    triple: &str,
    linker: Option<&str>,
) -> Vec<String> {
    let mut arguments: Vec<String> = ["build", "--locked", "--target", triple]
        .map(str::to_owned)
        .into();
    if matches!(profile, Profile::Release) {
        arguments.push("--release".to_owned());
    }
    for package in packages {
        arguments.extend(["--package".to_owned(), (*package).to_owned()]);
    }
    let linker = linker.map(|linker| format!("target.{triple}.linker=\"{linker}\""));
    let settings = [
        "profile.release.strip=\"symbols\"".to_owned(),
        format!("target.{triple}.rustflags=[\"-Ctarget-feature=+crt-static\"]"),
    ];
    for setting in linker.into_iter().chain(settings) {
        arguments.extend(["--config".to_owned(), setting]);
    }
    arguments
}

/// What a program calls itself.
pub(crate) fn version(program: &Path) -> Result<String> {
    let text = capture(Command::new(program).arg("--version"))?;
    let version = text.split_whitespace().nth(1);
    version
        .map(str::to_owned)
        .with_context(|| format!("`{}` prints no version: {text}", program.display()))
}

/// Seconds since the Unix epoch that everything built has as its time: `SOURCE_DATE_EPOCH`, else the last commit's.
pub(crate) fn epoch() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is `{given}`, not a number of seconds"));
    }
    let mut git = Command::new("git");
    git.current_dir(root()).args(["log", "-1", "--format=%ct"]);
    let text = capture(&mut git)
        .context("neither SOURCE_DATE_EPOCH nor a git commit to take the time from")?;
    ensure!(!text.trim().is_empty(), "this repository has no commit");
    Ok(text.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// By cargo itself, with a linker that says what it is asked for: what is linked is linked by it, statically.
    #[test]
    fn cargo_heeds_every_setting() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("portguard-shipped-{}", std::process::id()));
        fs::create_dir_all(folder.join("src"))?;
        let manifest = "[package]\nname = \"portguard\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(folder.join("Cargo.toml"), manifest)?;
        fs::write(
            folder.join("Cargo.lock"),
            "version = 4\n[[package]]\nname = \"portguard\"\nversion = \"0.0.0\"\n",
        )?;
        fs::write(folder.join("src/main.rs"), "fn main() {}\n")?;
        let triple = Arch::here()?.triple();
        let mut command = cargo();
        command
            .current_dir(&folder)
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .args(arguments(
                Profile::Release,
                &["portguard"],
                &triple,
                Some("a-linker-of-its-own"),
            ))
            .arg("--verbose");
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        fs::remove_dir_all(&folder)?;
        for wanted in [
            "linker=a-linker-of-its-own",
            "strip=symbols",
            "-Ctarget-feature=+crt-static",
        ] {
            ensure!(said.contains(wanted), "{wanted}: {said}");
        }
        Ok(())
    }
}
