//! What can go wrong with a change of the guard, under traffic: the old or the new one is in force, never none, never a
//! mixture, and nothing is left over.

mod refusals;
pub(crate) mod state;
pub(crate) mod traffic;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use portguard_harness::traffic::UdpEcho;
use portguard_kernel::fault::{
    CONFIRM_STEPS, HEAL_STEPS, LOAD_STEPS, ROLLBACK_STEPS, UNLOAD_STEPS,
};

use self::state::{check_gone, check_whole, heal, in_force, maps, running};
use self::traffic::Traffic;
use crate::guard::Guarded;

/// Open in both policies, in none: with traffic all the time.
const BOTH: u16 = 7010;
const NONE: u16 = 7013;
/// Open in the first policy only, in the second only.
const FIRST: u16 = 7011;
const SECOND: u16 = 7012;
/// How often each step is tried, unless `PORTGUARD_ROUNDS` says more.
const ROUNDS: usize = 1;

fn echoes(guarded: &Guarded) -> Result<Vec<UdpEcho>> {
    let address = IpAddr::V4(guarded.link.left.v4());
    [FIRST, SECOND]
        .iter()
        .map(|port| UdpEcho::start(&guarded.link.left.host, SocketAddr::new(address, *port)))
        .collect()
}

/// Runs a command that must die at a step.
fn dies(guarded: &Guarded, args: &[String], step: &str) -> Result<()> {
    use std::os::unix::process::ExitStatusExt as _;
    let output = guarded.run(args, Some(&format!("{step}:kill")))?;
    ensure!(output.status.signal() == Some(9), "{step}: {output:?}");
    Ok(())
}

fn verb(guarded: &Guarded, verb: &str) -> Vec<String> {
    [verb, "--interface", guarded.interface()]
        .map(str::to_owned)
        .to_vec()
}

/// One of the two policies, whole.
fn check_open(guarded: &Guarded, after: &str) -> Result<u16> {
    match guarded.open(&[FIRST, SECOND])?.as_slice() {
        [one] => Ok(*one),
        open => anyhow::bail!("after {after}: {open:?} are open"),
    }
}

#[test]
fn a_change_killed_at_any_step_under_traffic_leaves_one_whole_generation() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let traffic = Traffic::start(&guarded, BOTH, NONE)?;
    let mut now = FIRST;
    let rounds = std::env::var("PORTGUARD_ROUNDS").map_or(Ok(ROUNDS), |said| said.parse())?;
    for round in 0..rounds {
        for step in LOAD_STEPS {
            let after = format!("load killed at {step}, round {round}");
            let next = if now == FIRST { SECOND } else { FIRST };
            let before = running(&guarded)?;
            dies(
                &guarded,
                &guarded.load_args("--enforce", &[BOTH, next], &[]),
                step,
            )?;
            let torn = running(&guarded)?;
            if step == "egress" {
                ensure!(
                    torn[0] == before[0] && torn[1] != before[1],
                    "after {after}"
                );
                let live = in_force(&guarded)?;
                ensure!(
                    live.is_some_and(|live| live
                        .warnings
                        .iter()
                        .any(|said| said.contains("different"))),
                    "a mixture must be said"
                );
            } else {
                ensure!(
                    (torn[0] == before[0]) == (torn[1] == before[1]),
                    "after {after}"
                );
            }
            heal(&guarded)?;
            check_whole(&guarded, &after)?;
            now = check_open(&guarded, &after)?;
            let is_swapped = LOAD_STEPS.iter().position(|one| *one == step)
                >= LOAD_STEPS.iter().position(|one| *one == "ingress");
            ensure!((now == next) == is_swapped, "after {after}: {now} is open");
        }
    }
    let sent = traffic.finish()?;
    let held = maps(&guarded)?;
    guarded.unload()?.success()?;
    check_gone(&held)?;
    println!(
        "{} loads killed, {sent} allowed datagrams, none lost; as many denied, none passed",
        rounds * LOAD_STEPS.len()
    );
    Ok(())
}

#[test]
fn a_rollback_a_confirm_and_a_cure_killed_at_any_step_leave_one_whole_generation() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let traffic = Traffic::start(&guarded, BOTH, NONE)?;
    for step in ROLLBACK_STEPS {
        guarded.load("--enforce", &[BOTH, SECOND], &[])?;
        dies(&guarded, &verb(&guarded, "rollback"), step)?;
        heal(&guarded)?;
        check_whole(&guarded, step)?;
        let is_back = !matches!(step, "rollback-described" | "revert-marked");
        ensure!(
            check_open(&guarded, step)? == if is_back { FIRST } else { SECOND },
            "after {step}"
        );
        // Whatever it is, it can be gone on from.
        guarded.load("--enforce", &[BOTH, FIRST], &[])?;
        check_whole(&guarded, step)?;
    }
    for step in CONFIRM_STEPS {
        guarded.load("--enforce", &[BOTH, FIRST], &["--confirm-within", "1h"])?;
        dies(&guarded, &verb(&guarded, "confirm"), step)?;
        check_whole(&guarded, step)?;
        let is_confirmed = in_force(&guarded)?.is_some_and(|live| live.is_confirmed);
        ensure!(is_confirmed == (step == "confirmed"), "after {step}");
        guarded.run(&verb(&guarded, "confirm"), None)?.success()?;
    }
    for step in HEAL_STEPS {
        dies(
            &guarded,
            &guarded.load_args("--enforce", &[BOTH, SECOND], &[]),
            "egress",
        )?;
        dies(&guarded, &["agent".to_owned(), "--once".to_owned()], step)?;
        heal(&guarded)?;
        check_whole(&guarded, step)?;
        ensure!(check_open(&guarded, step)? == FIRST);
    }
    traffic.finish()?;
    for step in UNLOAD_STEPS {
        guarded.load("--enforce", &[BOTH, FIRST], &[])?;
        let held = maps(&guarded)?;
        dies(&guarded, &verb(&guarded, "unload"), step)?;
        ensure!(
            guarded.open(&[FIRST, SECOND])? == [FIRST, SECOND],
            "after {step}"
        );
        heal(&guarded)?;
        ensure!(!guarded.pins()?.exists(), "pins after {step}");
        check_gone(&held)?;
    }
    Ok(())
}

#[test]
fn the_agent_heals_a_mixture_without_being_asked() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let agent = guarded.start(&["agent".to_owned()], None)?;
    dies(
        &guarded,
        &guarded.load_args("--enforce", &[BOTH, SECOND], &[]),
        "egress",
    )?;
    crate::guard::eventually("the cure", || {
        Ok(in_force(&guarded)?.is_some_and(|live| live.warnings.is_empty()))
    })?;
    check_whole(&guarded, "the agent's cure")?;
    drop(agent);
    Ok(())
}
