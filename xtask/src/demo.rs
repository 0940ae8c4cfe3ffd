//! `cargo xtask demo`: a vendor's role guards an interface, in audit and then in enforce, with real traffic.
//!
//! Everything happens in network namespaces that this process makes; they go away with it.

mod probes;
mod stage;

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use crate::setup;
use crate::shell::{result, say};

use probes::{Fate, Probe, probes};
use stage::{INTERFACE, Paint, Stage};

/// Shows a vendor's role guarding an interface, in private network namespaces (root).
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_args: &DemoArgs) -> Result<()> {
    setup::ensure(&[])?;
    let program = setup::build_portguard()?;
    let stage = Stage::new(program)?;
    let paint = Paint::new();

    title(
        &paint,
        "A ThoughtSpot node, and three others on its network",
    );
    say(STORY);

    title(
        &paint,
        "1. Audit: the vendor's document judges, nothing is dropped",
    );
    stage.show(&["check", "--role", "thoughtspot/node"], Some(14))?;
    stage.load("--audit")?;
    let probes = probes();
    let audit = attempt(&stage, &probes)?;
    table(&paint, &probes, &[("audit", &audit)]);
    say("\nWhat enforcing would have dropped, by port:\n");
    stage.show(&["counters", "--violations"], None)?;

    title(&paint, "2. Enforce: one atomic swap, no packet in between");
    stage.load("--enforce")?;
    let enforce = attempt(&stage, &probes)?;
    table(&paint, &probes, &[("audit", &audit), ("enforce", &enforce)]);
    say("\nEvery packet by reason, both phases:\n");
    stage.show(&["counters", "--by", "reason"], None)?;
    say("\nWhat passed, with the rows of the document that say so:\n");
    stage.show(&["counters", "--by", "row", "--top", "6"], None)?;

    title(&paint, "3. Unload: nothing is left behind");
    stage.show(&["unload", "--interface", INTERFACE], None)?;
    let after = attempt(&stage, &probes)?;
    ensure!(
        after == audit,
        "without the guard not everything works as it did in audit"
    );
    ensure!(
        stage.is_clean()?,
        "the unloaded guard left something behind"
    );
    say("every probe fares as in audit; no program, link or map of the guard is left");

    verify(&probes, &audit, &enforce)?;
    result(paint.good("\nAs documented: what the matrix lists works, the rest is dropped, and every packet has its row or its reason."));
    Ok(())
}

const STORY: &str = "
    node      10.77.0.1   fd77::1    the guarded host; it runs documented services and one that nobody documented
    node-2    10.77.0.2   fd77::2    another ThoughtSpot node
    admin     10.77.0.3   fd77::3    one of the admin addresses
    stranger  10.77.0.66  fd77::66   anybody else";

/// What became of each probe.
fn attempt(stage: &Stage, probes: &[Probe]) -> Result<Vec<bool>> {
    probes
        .iter()
        .map(|probe| (probe.send)(stage).with_context(|| format!("probe `{}`", probe.what)))
        .collect()
}

/// The demo is a test, too: what should pass passes in both phases, what should not is dropped in the second only.
fn verify(probes: &[Probe], audit: &[bool], enforce: &[bool]) -> Result<()> {
    for ((probe, audit), enforce) in probes.iter().zip(audit).zip(enforce) {
        ensure!(*audit, "`{}` was not answered in audit", probe.what);
        let wanted = probe.fate == Fate::Passes;
        ensure!(
            *enforce == wanted,
            "`{}` was {} in enforce",
            probe.what,
            if *enforce { "answered" } else { "not answered" }
        );
    }
    Ok(())
}

fn title(paint: &Paint, text: &str) {
    say(format_args!("\n{}", paint.bold(text)));
}

fn table(paint: &Paint, probes: &[Probe], phases: &[(&str, &[bool])]) {
    let mut head = format!("    {:<11}{:<54}", "from", "sends");
    for (phase, _) in phases {
        let _ = write!(head, "{phase:<12}");
    }
    say(paint.bold(&head));
    for (index, probe) in probes.iter().enumerate() {
        let mut line = format!("    {:<11}{:<54}", probe.from, probe.what);
        for (_, outcomes) in phases {
            let answered = outcomes.get(index).copied().unwrap_or(false);
            let text = if answered { "answered" } else { "dropped" };
            let cell = format!("{text:<12}");
            line.push_str(&if answered {
                paint.good(&cell)
            } else {
                paint.bad(&cell)
            });
        }
        line.push_str(probe.why);
        say(line);
    }
}
