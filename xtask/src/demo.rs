//! `cargo xtask demo`: a vendor's role guards an interface, in audit and then in enforce, with real traffic.
//!
//! Everything happens in network namespaces and on a bpffs that this process makes; they go away with it, also when it
//! is interrupted.

mod fleet;
mod probes;
pub(crate) mod screens;
mod stage;
pub(crate) mod verbs;

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::exchange_tcp;

use crate::setup;
use crate::shell::{Missing, result, say, show};
use crate::workspace::{is_root, which};

use probes::{Fate, Probe, probes};
use stage::{INTERFACE, Paint, Stage};

/// Shows a vendor's role guarding an interface, in private network namespaces (root).
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Show a fleet instead: three members of etcd, eight hosts, a rollout in waves, and what stops one
    #[arg(long)]
    fleet: bool,
    /// The `portguard` to show, built already
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let program = if let Some(program) = &args.program {
        program.clone()
    } else {
        setup::ensure(if args.fleet { &setup::FLEET } else { &[] })?;
        if args.fleet {
            setup::servers()?;
        }
        setup::build_portguard()?
    };
    match (is_root(), args.fleet) {
        (false, _) => through_sudo(&program, args.fleet),
        (true, true) => fleet::play(program),
        (true, false) => play(program),
    }
}

/// The demo checks what it shows, so `ci` plays it, too.
pub(crate) fn check() -> Result<()> {
    for fleet in [false, true] {
        run(&DemoArgs {
            fleet,
            program: None,
        })?;
    }
    Ok(())
}

/// The build was the user's own; only the demo itself is root's.
fn through_sudo(program: &Path, fleet: bool) -> Result<()> {
    let why =
        "the demo makes network namespaces and loads eBPF programs into them, which takes root";
    if which("sudo").is_none() || !io::stdin().is_terminal() {
        return Err(Missing::error(
            why,
            "as root: cargo xtask demo; or: sudo --preserve-env env PATH=\"$PATH\" cargo xtask demo",
        ));
    }
    say(format_args!("{why}: it is called through sudo"));
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg(env::current_exe()?);
    command.arg("demo").arg("--program").arg(program);
    if fleet {
        command.arg("--fleet");
    }
    show(&mut command)
}

fn play(program: PathBuf) -> Result<()> {
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
    let mut session = stage.session()?;
    stage.load("--enforce")?;
    ensure!(
        exchange_tcp(&mut session, b"still there?", Duration::from_secs(2))?,
        "the swap cut a session that was open before"
    );
    say("    a session of node-2 with port 443, open since before the swap, goes on\n");
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
