//! `portguard confirm` and `portguard rollback`: what is in force stays, or what was before comes back.

use std::io::{self, Write as _};

use clap::Args;
use serde::Serialize;

use super::load::weaker::weaker;
use super::load::{keep, safety};
use crate::stderr::stderr;
use crate::stdout::print_field;
use portguard_kernel::generation::confirm;
use portguard_kernel::generation::publish::{before, roll_back};
use portguard_kernel::generation::{self, Live};
use portguard_kernel::host::interface::{Interface, canonical};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::{self, Layout, Lock};
use portguard_kernel::recovery::reconcile::reconcile;
use portguard_policy::error::{Exit, Fault};

/// Keep what was loaded with `--confirm-within`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard load --enforce --confirm-within 2m && portguard confirm")]
pub struct ConfirmArgs {
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Go back to the generation that was in force before
///
/// Takes effect at once, and warns if the policy is weaker. If it drops more, open sessions are checked as by `load`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard rollback  what was in force before the last load is in force again
  portguard rollback --interface eth0")]
pub struct RollbackArgs {
    /// Go back although open sessions would be cut; your own is still looked at
    #[arg(long)]
    cut_sessions: bool,
    /// Go back even if open sessions, or your own, would be cut
    #[arg(long)]
    force: bool,
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Confirms.
///
/// # Errors
/// If it is too late, or nothing is guarded.
pub fn confirm(args: &ConfirmArgs) -> anyhow::Result<Exit> {
    let lock = pins::lock()?;
    let mut interfaces = Vec::new();
    for (name, layout, live) in guarded(&lock, &args.interfaces)? {
        let is_confirmed = confirm::confirm(&lock, &layout, &live)?;
        let said = if is_confirmed {
            if let Some(confirmed) = generation::live(&layout)? {
                keep(&name, &confirmed);
            }
            "confirmed"
        } else {
            "there was nothing to confirm"
        };
        if !args.json {
            tell(&name, &format!("generation {}: {said}", live.meta.number))?;
        }
        interfaces.push(Changed {
            name,
            generation: live.meta.number,
            confirmed: Some(is_confirmed),
            replaced: None,
        });
    }
    written(args.json, &interfaces)
}

/// Goes back.
///
/// # Errors
/// If there is nothing to go back to, and what the system refuses.
pub fn rollback(args: &RollbackArgs) -> anyhow::Result<Exit> {
    let lock = pins::lock()?;
    let mut interfaces = Vec::new();
    let guarded = guarded(&lock, &args.interfaces)?;
    let mut loss = Vec::new();
    for (name, layout, live) in &guarded {
        let Some(to) = before(layout, live)? else {
            // Going back says so.
            loss.push(Vec::new());
            continue;
        };
        let interface = Interface::find(name)?;
        let (interface, policy) = ([interface], std::slice::from_ref(&to.policy));
        // Rules of the packet filter may have come since it was in force.
        safety::check_scope(args.force, &interface, policy)?;
        safety::check(
            args.force,
            args.force || args.cut_sessions,
            &interface,
            policy,
        )?;
        loss.push(weaker(live, &to.policy));
    }
    for ((name, layout, live), loss) in guarded.into_iter().zip(loss) {
        let to = roll_back(&lock, &layout, &live)?;
        if let Some(back) = generation::live(&layout)? {
            keep(&name, &back);
        }
        let mode = to.policy.settings.mode();
        if !args.json {
            let (now, gone) = (to.number, live.meta.number);
            let words = format!("generation {now} is in force again ({mode}); {gone} is gone");
            tell(&name, &words)?;
        }
        for one in loss {
            tell(&name, &format!("warning: less is dropped now: {one}"))?;
        }
        interfaces.push(Changed {
            name,
            generation: to.number,
            confirmed: None,
            replaced: Some(live.meta.number),
        });
    }
    written(args.json, &interfaces)
}

/// What is in force now.
#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    generation: u64,
    /// Whether there was something to confirm.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<bool>,
    /// The generation that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<u64>,
}

fn written(as_json: bool, interfaces: &[Changed]) -> anyhow::Result<Exit> {
    if as_json {
        print_field("interfaces", &interfaces)?;
    }
    Ok(Exit::Ok)
}

fn tell(name: &str, what: &str) -> io::Result<()> {
    writeln!(stderr(), "{name}: {what}")
}

fn guarded(lock: &Lock, named: &[String]) -> anyhow::Result<Vec<(String, Layout, Live)>> {
    reconcile(lock)?;
    let layouts: Vec<Layout> = if named.is_empty() {
        bpffs::layouts_here()
    } else {
        named
            .iter()
            .map(|name| Layout::of(&canonical(name)))
            .collect()
    };
    let mut found = Vec::new();
    for layout in layouts {
        let (name, _) = layout.interface();
        match generation::live(&layout)? {
            Some(live) => found.push((name, layout, live)),
            None if named.is_empty() => {}
            None => return Err(not_guarded(&format!("`{name}` is not guarded")).into()),
        }
    }
    if found.is_empty() {
        return Err(not_guarded("no interface is guarded").into());
    }
    Ok(found)
}

fn not_guarded(what: &str) -> Fault {
    Fault::usage(what).hint("`portguard status` lists the guarded interfaces")
}
