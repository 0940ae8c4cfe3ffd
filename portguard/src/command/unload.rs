//! `portguard unload`: remove exactly what `load` put there.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use clap::Args;
use serde::{Serialize, Serializer};

use crate::stderr::stderr;
use crate::stdout::print_json;
use portguard_kernel::generation::publish::unload;
use portguard_kernel::host::boot::{self, Return};
use portguard_kernel::host::interface::canonical;
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::{self, Layout, Lock};
use portguard_kernel::pins::moved::{self, Moved};
use portguard_kernel::recovery::reconcile::{reconcile, sweep_stale};
use portguard_kernel::store;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;

/// Stop guarding: remove what `load` put there, and nothing else
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard unload             until the next boot, or the next `portguard load`
  portguard unload --stay-off  off, also after a reboot
  portguard unload --stale     only tidy up after interfaces that are gone")]
pub struct UnloadArgs {
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Stay unguarded after a reboot, until a policy is loaded
    #[arg(long, conflicts_with = "stale")]
    stay_off: bool,
    /// Only remove what is left of guards whose interfaces are gone for good
    #[arg(long, conflicts_with = "interfaces")]
    stale: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    /// Interfaces that were guarded and are no longer.
    unloaded: Vec<String>,
    /// Those among them that the next boot guards again, or the fleet's agent.
    #[serde(serialize_with = "names")]
    comes_back: BTreeMap<String, Return>,
    /// Those that stay unguarded until somebody loads a policy.
    stays_off: Vec<String>,
    /// Directories of pins that were stale.
    removed: Vec<String>,
}

fn names<S: Serializer>(back: &BTreeMap<String, Return>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(back.keys())
}

/// Unloads. Nothing loaded is fine where no interface was named, and a usage error where one was.
///
/// # Errors
/// What the system refuses.
pub fn run(args: &UnloadArgs) -> anyhow::Result<Exit> {
    let lock = pins::lock()?;
    let mut answer = Answer::default();
    if args.stale {
        answer.removed = sweep_stale(&lock, true)?;
    } else {
        all(&lock, args, &mut answer)?;
    }
    if args.json {
        print_json(&answer)?;
    } else {
        tell(&answer, args.stale)?;
    }
    Ok(Exit::Ok)
}

fn all(lock: &Lock, args: &UnloadArgs, answer: &mut Answer) -> anyhow::Result<()> {
    // Whatever somebody did to the pins: this is the way out.
    if let Err(error) = reconcile(lock) {
        writeln!(stderr(), "warning: {error:#}")?;
    }
    let named = &args.interfaces;
    let layouts: Vec<Layout> = if named.is_empty() {
        let mut all = bpffs::layouts_here();
        // What was unloaded before is to stay off as well.
        let stored = store::all_stored().into_iter().filter(|_| args.stay_off);
        let stored = stored.map(|name| Layout::of(&name));
        let more: Vec<Layout> = stored.filter(|layout| !all.contains(layout)).collect();
        all.extend(more);
        all
    } else {
        named
            .iter()
            .map(|name| Layout::of(&canonical(name)))
            .collect()
    };
    if layouts.is_empty()
        && let Some(moved) = moved::here().first()
    {
        return Err(moved.fault().into());
    }
    for layout in &layouts {
        let (name, _) = layout.interface();
        // Before the guard goes, so that no unit brings it back in between.
        let is_off = args.stay_off && store::switch_off(layout)?;
        if is_off {
            answer.stays_off.push(name.clone());
        }
        let mut found = unload(lock, layout)?;
        for other in layout.of_other_versions() {
            found |= unload(lock, &other)?;
        }
        let is_turned_off = is_off && store::is_stored(layout);
        let is_it = |moved: &Moved| !found && moved.interface == name;
        if let Some(moved) = moved::here().into_iter().find(is_it) {
            if !moved.is_orphan {
                return Err(moved.fault().into());
            }
            // Nobody else can end it.
            found = unload(lock, &moved.layout)?;
        }
        if !found && !is_turned_off {
            return Err(Fault::usage(format!("`{name}` is not guarded"))
                .hint("`portguard status` lists the guarded interfaces")
                .into());
        }
        if found && let Some(back) = comes_back(layout, &name) {
            answer.comes_back.insert(name.clone(), back);
        }
        if found {
            answer.unloaded.push(name);
        }
    }
    Ok(())
}

/// Who guards the interface again, unless it is to stay off.
fn comes_back(layout: &Layout, name: &str) -> Option<Return> {
    if store::is_off(layout) {
        return None;
    }
    boot::comes_back(name, store::is_stored(layout))
}

/// What guards an interface again that was switched off. What a fleet's host enforces is on its disk, and no site file is beside it.
pub(super) fn loads_again(name: &str) -> String {
    if boot::has_fleet() {
        format!("portguard load --last-good --switch-on --interface {name}")
    } else {
        "portguard load".to_owned()
    }
}

fn tell(answer: &Answer, is_stale: bool) -> io::Result<()> {
    let mut err = stderr();
    for name in &answer.unloaded {
        let back = answer.comes_back.get(name);
        let is_off = answer.stays_off.contains(name);
        let name = plain(name);
        writeln!(err, "{name}: no longer guarded")?;
        let who = match back {
            Some(Return::Agent) => "the fleet's agent guards it again, within seconds".to_owned(),
            Some(Return::AgentAtBoot) => {
                "the fleet's agent guards it again once it runs, as from the next boot on"
                    .to_owned()
            }
            Some(Return::Unit) => {
                format!("the next boot guards it again (the unit portguard@{name} is enabled)")
            }
            None if is_off => continue,
            None => {
                writeln!(err, "  nothing will guard it again by itself")?;
                continue;
            }
        };
        writeln!(
            err,
            "  {who}: `portguard unload --interface {name} --stay-off` keeps it off"
        )?;
    }
    for name in &answer.stays_off {
        let name = plain(name);
        let load = loads_again(&name);
        writeln!(err, "{name}: stays off until `{load}`")?;
    }
    for directory in &answer.removed {
        writeln!(err, "removed `{directory}`")?;
    }
    match (
        is_stale,
        answer.unloaded.is_empty() && answer.stays_off.is_empty(),
        answer.removed.is_empty(),
    ) {
        (true, _, true) => writeln!(err, "nothing is stale"),
        (false, true, _) => writeln!(err, "no interface is guarded"),
        _ => Ok(()),
    }
}
