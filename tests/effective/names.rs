//! An interface may have a name that a terminal takes for commands: no view hands it on.

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::unique_name;

use super::{ip, json, run};
use crate::guard::{Guarded, SHORT};

#[test]
fn no_name_of_an_interface_reaches_a_terminal_as_a_command() -> Result<()> {
    let mut guarded = Guarded::new()?;
    let name = unique_name("\u{1b}[2J");
    let old = guarded.interface().to_owned();
    ip(&guarded, &["link", "set", &old, "down"])?;
    ip(&guarded, &["link", "set", &old, "name", &name])?;
    ip(&guarded, &["link", "set", &name, "up"])?;
    guarded.link.left.name.clone_from(&name);
    guarded.link.left.wait_up()?;
    let loaded = guarded.load("--enforce", &[7000], &[])?;
    ensure!(!guarded.reaches(9, SHORT)?, "it is guarded");
    let mut said = vec![("load", loaded)];
    for verb in [
        &["status"][..],
        &["counters"],
        &["counters", "--violations"],
        &["flows"],
        &["drift"],
        &["events", "--seconds", "0"],
        &["doctor", "--interface", &name],
        &["report", "--format", "markdown"],
        &["explain", "--running", &name, "udp", "10.77.0.2", "9"],
        &["explain", "udp", "10.77.0.2", "9"],
        &["confirm"],
        &["rollback", "--interface", &name],
        &["load", "--interface", &name],
        &["unload", "--interface", &name],
        &["unload", "--interface", &name],
        &["status", "--interface", &name],
    ] {
        said.push((verb[0], run(&guarded, verb)?));
    }
    ensure!(said.len() > 10);
    let tail = name.trim_start_matches('\u{1b}');
    let mut named = 0;
    for (verb, output) in &said {
        for stream in [&output.stdout, &output.stderr] {
            ensure!(!stream.contains('\u{1b}'), "{verb}: {stream:?}");
            named += usize::from(stream.contains(tail));
        }
    }
    ensure!(named > 8, "the name is shown: {named}");
    // JSON has it as it is, by its own escapes.
    guarded.load("--audit", &[7000], &[])?;
    let status = run(&guarded, &["status", "--json"])?.success()?;
    ensure!(!status.stdout.contains('\u{1b}'), "{status}");
    let answer = json(&status)?;
    let names = answer["interfaces"].as_array().context("interfaces")?;
    ensure!(names.iter().any(|one| one["name"] == *name), "{answer}");
    Ok(())
}
