//! The tool works with exactly the capabilities that the units give it, and says which one it lacks; the units are sound,
//! and do at boot what they promise.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;

use crate::guard::{Guarded, LONG};

const OPEN: u16 = 7030;
const UNITS: [&str; 2] = ["portguard@.service", "portguard-agent.service"];

fn unit(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/systemd")
        .join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn setting<'a>(unit: &'a str, name: &str) -> Result<&'a str> {
    unit.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .with_context(|| format!("no {name}"))
}

/// What the units give, as `setpriv` calls it.
fn capabilities() -> Result<Vec<String>> {
    let all = UNITS
        .iter()
        .map(|name| Ok(setting(&unit(name)?, "CapabilityBoundingSet")?.to_owned()))
        .collect::<Result<Vec<String>>>()?;
    ensure!(
        all.iter().all(|set| Some(set) == all.first()),
        "the units differ: {all:?}"
    );
    Ok(all[0]
        .split_whitespace()
        .map(|name| name.trim_start_matches("CAP_").to_ascii_lowercase())
        .collect())
}

/// Runs the tool with these capabilities and no others.
fn with(
    guarded: &Guarded,
    capabilities: &[String],
    state: &Path,
    args: &[String],
) -> Result<Output> {
    let set = std::iter::once("-all".to_owned())
        .chain(capabilities.iter().map(|name| format!("+{name}")))
        .collect::<Vec<String>>()
        .join(",");
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set={set}"))
        .args(["--inh-caps=-all", "--no-new-privs"])
        .arg(env!("CARGO_BIN_EXE_portguard"))
        .args(args)
        .env("STATE_DIRECTORY", state);
    for name in ["SSH_CONNECTION", "PORTGUARD_CONFIG", "PORTGUARD_FAULT"] {
        command.env_remove(name);
    }
    guarded.link.left.host.output(&mut command, LONG)
}

fn state(guarded: &Guarded) -> PathBuf {
    std::env::temp_dir().join(format!("{}-privileges", guarded.interface()))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn exactly_the_units_capabilities_are_enough_and_each_is_missed() -> Result<()> {
    let guarded = Guarded::new()?;
    let state = state(&guarded);
    let all = capabilities()?;
    let load = guarded.load_args("--enforce", &[OPEN], &["--confirm-within", "1h"]);
    for lacking in &all {
        let rest: Vec<String> = all.iter().filter(|one| *one != lacking).cloned().collect();
        let output = with(&guarded, &rest, &state, &load)?;
        let name = format!("CAP_{}", lacking.to_ascii_uppercase());
        ensure!(output.code() == 3, "without {name}: {output}");
        ensure!(
            output.stderr.contains(&format!("lacks {name}")),
            "without {name}: {output}"
        );
        ensure!(
            guarded.status()?.is_none() && !guarded.pins()?.exists(),
            "without {name}"
        );
    }
    with(&guarded, &all, &state, &load)?.success()?;
    let name = guarded.interface().to_owned();
    for verb in [
        "status --json".to_owned(),
        "counters --json".to_owned(),
        "drift --json".to_owned(),
        format!("confirm --interface {name}"),
        "agent --once".to_owned(),
    ] {
        let output = with(&guarded, &all, &state, &words(&verb))?;
        // Drift may have findings.
        ensure!(
            matches!(output.code(), 0 | 1) && !output.stderr.contains("error"),
            "{verb}: {output}"
        );
    }
    with(&guarded, &all, &state, &load)?.success()?;
    with(
        &guarded,
        &all,
        &state,
        &words(&format!("rollback --interface {name}")),
    )?
    .success()?;
    with(
        &guarded,
        &all,
        &state,
        &words(&format!("unload --interface {name}")),
    )?
    .success()?;
    std::fs::remove_dir_all(&state)?;
    Ok(())
}

#[test]
fn the_units_command_does_at_boot_what_the_unit_says() -> Result<()> {
    let guarded = Guarded::new()?;
    let state = state(&guarded);
    let all = capabilities()?;
    let unit = unit("portguard@.service")?;
    let start = setting(&unit, "ExecStart")?.replace("%I", guarded.interface());
    let boot = words(
        start
            .strip_prefix("/usr/bin/portguard ")
            .context("the program")?,
    );
    // Nothing was ever in force for good: the unit fails, and who wants it closed has the network wait for it.
    let output = with(&guarded, &all, &state, &boot)?;
    ensure!(
        output.code() == 2 && output.stderr.contains("no policy is stored"),
        "{output}"
    );
    ensure!(guarded.status()?.is_none());
    ensure!(setting(&unit, "Before")?.contains("network-pre.target"));
    let load = guarded.load_args("--enforce", &[OPEN], &[]);
    with(&guarded, &all, &state, &load)?.success()?;
    let digest = guarded.status()?.context("a guard")?["digest"].clone();
    // A later one that nobody confirms is not what the next boot loads.
    let unconfirmed =
        guarded.load_args("--enforce", &[OPEN, OPEN + 1], &["--confirm-within", "1h"]);
    with(&guarded, &all, &state, &unconfirmed)?.success()?;
    guarded.unload()?.success()?;
    with(&guarded, &all, &state, &boot)?.success()?;
    let status = guarded.status()?.context("a guard")?;
    ensure!(
        status["digest"] == digest && status["mode"] == "enforce",
        "{status}"
    );
    // A damaged file is said, and not half loaded.
    guarded.unload()?.success()?;
    let file = state.join(format!("{}.policy.json", guarded.interface()));
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("7030", "7031"))?;
    let output = with(&guarded, &all, &state, &boot)?;
    ensure!(
        output.code() == 3 && output.stderr.contains("damaged"),
        "{output}"
    );
    ensure!(guarded.status()?.is_none());
    std::fs::remove_dir_all(&state)?;
    Ok(())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("portguard-units-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for name in UNITS {
        // The program is where this was built, not where the package puts it.
        let text = unit(name)?.replace("/usr/bin/portguard", env!("CARGO_BIN_EXE_portguard"));
        let path = directory.join(name.replace('@', "@eth0"));
        std::fs::write(&path, text)?;
        verify.arg(path);
    }
    let output = verify
        .output()
        .context("systemd-analyze is what this test asks: install systemd")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Units of the machine itself are read along; only what is said of ours counts.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("portguard"))
        .collect();
    std::fs::remove_dir_all(&directory)?;
    ensure!(output.status.success() && ours.is_empty(), "{said}");
    Ok(())
}
