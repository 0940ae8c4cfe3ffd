//! `cargo xtask demo`: a vendor's role guards an interface, first in audit, then in enforce.
//!
//! Everything happens in network namespaces and on a bpffs of this process's own: the machine's network is not touched,
//! and nothing is left behind, not even by an interrupt. What is shown is checked, too: the demo fails if it lies.

mod stage;
mod tell;
mod traffic;

use std::env;
use std::io::{self, IsTerminal as _};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portguard_harness::traffic::exchange_tcp;

use crate::setup;
use crate::shell::{Missing, say, show, step};
use crate::workspace::{cargo, is_root, target, which};
use stage::{INTERFACE, Stage};
use tell::Teller;
use traffic::{Act, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// All is built: go on as root
    #[arg(long, hide = true)]
    built: bool,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    if !args.built {
        setup::ensure(&[])?;
        let mut build = cargo();
        build.args(["build", "--package", "portguard", "--bin", "portguard"]);
        step("building portguard", &mut build)?;
    }
    if !is_root() {
        return through_sudo();
    }
    play()
}

/// The build was the user's own; only the demo itself is root's.
fn through_sudo() -> Result<()> {
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
    show(command.args(["demo", "--built"]))
}

fn play() -> Result<()> {
    let begun = Instant::now();
    let tell = Teller::new();
    let stage = Stage::set(&target().join("debug/portguard"))?;
    tell.title("portguard: the vendor's port matrix guards the host");
    tell.text(&[
        "",
        "   node-1 (guarded)                      the network",
        "   10.20.0.11  fd20::11  ───── eth0 ──── 10.20.0.12  fd20::12   node-2, of the same cluster",
        "                                         10.20.0.50             an administrator",
        "                                         10.20.0.66             somebody's laptop",
        "",
        "Both are private network namespaces. node-1 is a ThoughtSpot node; what may reach it stands in",
        "ThoughtSpot's own document, row by row. Everything below also listens on node-1, documented or not:",
        "a database, a cache that somebody started, a forgotten SNMP agent.",
    ]);

    tell.chapter("1. Load the document in audit: count everything, drop nothing");
    tell.portguard(
        &stage,
        &[
            "load",
            "-c",
            "site.toml",
            "--host",
            "node-1",
            "--interface",
            INTERFACE,
            "--audit",
        ],
    )?;
    let acts = traffic::acts();
    let audit = traffic::perform(&stage, &acts)?;
    tell.text(&[
        "",
        "Real traffic of every kind from the network, and what became of it:",
        "",
    ]);
    tell.outcomes(&acts, &[("audit", &audit)]);
    expect(&acts, &audit, |_| Outcome::Arrived, "audit")?;

    tell.text(&["", "Which rows of the document were used:", ""]);
    tell.portguard(&stage, &["counters", "--by", "row", "--top", "6"])?;
    tell.text(&["", "And what enforcing would drop:", ""]);
    tell.portguard(&stage, &["counters", "--violations"])?;

    tell.chapter("2. Enforce: one atomic swap, while a session goes on");
    let mut session = stage.session()?;
    exchange(&mut session).context("the session before the swap")?;
    tell.portguard(
        &stage,
        &[
            "load",
            "-c",
            "site.toml",
            "--host",
            "node-1",
            "--interface",
            INTERFACE,
            "--enforce",
        ],
    )?;
    exchange(&mut session).context("the session that was open before the swap was cut")?;
    tell.text(&[
        "",
        "The session with node-2 that was open before goes on. The same traffic again:",
        "",
    ]);
    let enforce = traffic::perform(&stage, &acts)?;
    tell.outcomes(&acts, &[("audit", &audit), ("enforce", &enforce)]);
    expect(&acts, &enforce, |act| act.enforced, "enforce")?;

    tell.text(&["", "Every drop has its reason:", ""]);
    tell.portguard(&stage, &["counters", "--by", "reason"])?;

    tell.chapter("3. Unload: nothing stays");
    tell.portguard(&stage, &["unload", "--interface", INTERFACE])?;
    let after = traffic::perform(&stage, &acts)?;
    expect(&acts, &after, |_| Outcome::Arrived, "no guard")?;
    let seconds = begun.elapsed().as_secs_f64();
    tell.text(&[
        "",
        "All of it arrives again, as on any host without a guard.",
        "",
    ]);
    tell.text(&[&format!(
        "That took {seconds:.1} s, and this machine's own network was never touched."
    )]);
    tell.text(&["On a real network card: see README.md, and begin with --audit."]);
    Ok(())
}

fn exchange(session: &mut std::net::TcpStream) -> Result<()> {
    if !exchange_tcp(session, b"still there?", Duration::from_secs(2))? {
        bail!("no answer");
    }
    Ok(())
}

/// What was shown must be what the guard promises.
fn expect(
    acts: &[Act],
    seen: &[Outcome],
    wanted: impl Fn(&Act) -> Outcome,
    when: &str,
) -> Result<()> {
    let wrong: Vec<&str> = acts
        .iter()
        .zip(seen)
        .filter(|(act, seen)| wanted(act) != **seen)
        .map(|(act, _)| act.what)
        .collect();
    if !wrong.is_empty() {
        bail!("not what {when} promises: {}", wrong.join("; "));
    }
    Ok(())
}
