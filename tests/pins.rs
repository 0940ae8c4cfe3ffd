//! Somebody removed a pin below a guard, or put something else in its place: whatever the guard pins, views say what is so or why
//! they cannot, and the next load makes it whole without a moment in which less is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData};
use portguard_harness::net::Output;
use serde_json::Value;

use crate::faults::traffic::Traffic;
use crate::guard::Guarded;

/// What the policy opens, and what it does not.
const OPEN: u16 = 7000;
const CLOSED: u16 = 7001;

/// A verb that only looks, and whether what it says has the mode that is in force.
type View = (&'static str, bool);

const VIEWS: [View; 9] = [
    ("status --json", true),
    ("explain --running IF --in udp 192.0.2.9 7001 --json", true),
    ("counters --json", true),
    ("status", true),
    ("report --format csv", false),
    ("flows --json", false),
    ("drift --json", false),
    ("events --json --seconds 0", false),
    ("doctor --interface IF", false),
];

/// How many of them are asked where the pins are the same and all else is what it was.
const FEW: usize = 3;

/// What becomes of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Removed,
    /// Somebody else's map has its name.
    Replaced,
}

fn run(guarded: &Guarded, verb: &str) -> Result<Output> {
    let verb = verb.replace("IF", guarded.interface());
    let args: Vec<String> = verb.split(' ').map(str::to_owned).collect();
    guarded.run(&args, None)
}

fn load(guarded: &Guarded, mode: &str, more: &[&str]) -> Result<Output> {
    let mode = format!("--{mode}");
    let args = [&["--confirm-within", "0"], more].concat();
    guarded.run(&guarded.load_args(&mode, &[OPEN], &args), None)
}

/// A guard that has one to go back to.
fn guard(mode: &str) -> Result<Guarded> {
    let guarded = Guarded::new()?;
    load(&guarded, "audit", &[])?.success()?;
    load(&guarded, mode, &[])?.success()?;
    Ok(guarded)
}

/// All that is pinned for a guard, directories too: its own, and that of its conversations.
fn pins(guarded: &Guarded) -> Result<Vec<PathBuf>> {
    let own = guarded.pins()?;
    let name = own.file_name().context("a name")?.to_string_lossy();
    let (_, namespace) = name.split_once('@').context("a namespace")?;
    let top = own.ancestors().nth(2).context("portguard's directory")?;
    let mut found = vec![own.clone()];
    below(&own, &mut found)?;
    for entry in fs::read_dir(top)? {
        let state = entry?.path().join(namespace);
        if state.is_dir() {
            found.push(state.clone());
            below(&state, &mut found)?;
        }
    }
    Ok(found)
}

fn below(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        found.push(path.clone());
        if path.is_dir() {
            below(&path, found)?;
        }
    }
    Ok(())
}

/// Says whether there was anything to do.
fn spoil(pin: &Path, done: Done) -> Result<bool> {
    match (pin.is_dir(), done) {
        (true, Done::Replaced) => return Ok(false),
        (true, Done::Removed) => fs::remove_dir_all(pin)?,
        (false, _) => fs::remove_file(pin)?,
    }
    if done == Done::Replaced {
        Array::<MapData, u32>::create(1, 0)?.pin(pin)?;
    }
    Ok(true)
}

/// Whether the kernel still has the guard's program on the interface, whatever the pins say.
fn is_attached(guarded: &Guarded) -> Result<bool> {
    let host = &guarded.link.left.host;
    let index = host.index(guarded.interface())?;
    let programs = host.run(|| Ok(portguard_kernel::host::holder::xdp_programs(index)?))?;
    Ok(!programs.is_empty())
}

/// Every view: what is so, or why it cannot be said, with what to do.
fn look(guarded: &Guarded, mode: &str, case: &str, views: &[View]) -> Result<()> {
    let is_attached = is_attached(guarded)?;
    for &(verb, says_mode) in views {
        let output = run(guarded, verb)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(!said.contains("panicked"), "{case}: {verb}: {said}");
        ensure!(output.code() <= 3, "{case}: {verb}: {output}");
        ensure!(!said.contains("detach it"), "{case}: {verb}: {said}");
        if verb.ends_with("--json") && output.code() != 0 {
            let _: Value = serde_json::from_str(output.stdout.lines().next().unwrap_or("{}"))
                .or_else(|_| serde_json::from_str(&output.stdout))
                .with_context(|| format!("{case}: {verb}: {output}"))?;
        }
        if output.code() == 3 {
            ensure!(said.contains("error"), "{case}: {verb}: {said}");
            continue;
        }
        if is_attached {
            for wrong in ["no interface is guarded", "is not guarded"] {
                ensure!(!said.contains(wrong), "{case}: {verb}: {said}");
            }
            let is_right = !says_mode || said.contains(mode);
            ensure!(is_right, "{case}: {verb}: {said}");
        } else if says_mode && verb != "status" {
            let inbound = format!("\"inbound\": \"{mode}\"");
            ensure!(!said.contains(&inbound), "{case}: {verb}: {said}");
        }
    }
    Ok(())
}

/// A plain load, or what it says to do, makes it good; what is not documented stays out all along, where it was.
fn heal(guarded: &Guarded, mode: &str, case: &str) -> Result<()> {
    let was_attached = is_attached(guarded)?;
    let traffic = (was_attached && mode == "enforce")
        .then(|| Traffic::start(guarded, OPEN, CLOSED))
        .transpose()?;
    let load = |more: &[&str]| load(guarded, mode, more);
    let plain = load(&[])?;
    if plain.code() != 0 {
        ensure!(plain.code() == 3, "{case}: {plain}");
        let hint = plain.stderr.clone();
        if hint.contains("`portguard load --allow-weaker`") {
            load(&["--allow-weaker"])?
                .success()
                .context(case.to_owned())?;
        } else if let Some((_, rest)) = hint.split_once("`rm -r ") {
            let path = rest.split('`').next().context("a path")?;
            fs::remove_dir_all(path)?;
            load(&[])?.success().context(case.to_owned())?;
        } else {
            // Nothing is guarded any more: there is no moment to lose.
            ensure!(
                !was_attached && hint.contains("`portguard unload"),
                "{case}: {hint}"
            );
            guarded.unload()?.success().context(case.to_owned())?;
            load(&[])?.success().context(case.to_owned())?;
        }
    }
    if let Some(traffic) = traffic {
        traffic.finish().context(case.to_owned())?;
    }
    let status = guarded.status()?.with_context(|| case.to_owned())?;
    ensure!(status["effective"]["inbound"] == mode, "{case}: {status}");
    ensure!(
        status["warnings"] == serde_json::json!([]),
        "{case}: {status}"
    );
    Ok(())
}

fn sweep(mode: &str, done: Done, views: &[View]) -> Result<()> {
    let guarded = guard(mode)?;
    let count = pins(&guarded)?.len();
    ensure!(count > 30, "{:?}", pins(&guarded)?);
    for number in 0..count {
        let all = pins(&guarded)?;
        let pin = all.get(number).with_context(|| format!("{all:?}"))?;
        // Somebody else's map among the conversations keeps the next load from loading anything: the guard goes on.
        let is_shared = !pin.starts_with(guarded.pins()?);
        if done == Done::Replaced && is_shared || !spoil(pin, done)? {
            continue;
        }
        let case = format!("{mode}, {done:?}: {}", pin.display());
        look(&guarded, mode, &case, views)?;
        heal(&guarded, mode, &case)?;
        // Whatever it took, there is one to go back to again.
        if guarded
            .status()?
            .is_some_and(|status| status["previous"].is_null())
        {
            load(&guarded, mode, &[])?.success()?;
        }
    }
    Ok(())
}

#[test]
fn pins_that_are_gone_from_a_guard_that_enforces() -> Result<()> {
    sweep("enforce", Done::Removed, &VIEWS)
}

#[test]
fn pins_that_are_gone_from_a_guard_that_audits() -> Result<()> {
    sweep("audit", Done::Removed, &VIEWS[..FEW])
}

#[test]
fn pins_that_are_something_else_below_a_guard_that_enforces() -> Result<()> {
    sweep("enforce", Done::Replaced, &VIEWS[..FEW])
}
