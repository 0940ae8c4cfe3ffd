//! `portguard doctor`: what to know and to mend before enforcing.

use std::io::{self, Write};

use crate::stderr::stderr;
use crate::stdout::{print, print_json};
use clap::Args;
use portguard_common::reason::Direction;
use serde::Serialize;

use super::table::hanging;
use portguard_kernel::hook::attach;
use portguard_kernel::host::interface::Interface;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::preflight::{Check, Grade, check_host, check_interface};
use portguard_policy::error::Exit;

/// Check kernel, driver and interface before guarding
///
/// Shows for each check the result, why it matters and what to do. Exit code 1: do not enforce yet.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard doctor                       the host alone
  portguard doctor --interface eth0      and what its driver can do")]
pub struct DoctorArgs {
    /// Interface to check; may be repeated
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    host: Vec<Check>,
    interfaces: Vec<Examined>,
}

#[derive(Debug, Serialize)]
struct Examined {
    name: String,
    checks: Vec<Check>,
}

/// Looks, and prints.
///
/// # Errors
/// If there is no such interface.
pub fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let interfaces: Vec<Interface> = args
        .interfaces
        .iter()
        .map(|name| Interface::find(name))
        .collect::<Result<_, _>>()?;
    let answer = Answer {
        host: check_host(),
        interfaces: interfaces
            .iter()
            .map(|interface| Examined {
                name: interface.name.clone(),
                checks: examine(interface),
            })
            .collect(),
    };
    let is_bad = answer
        .interfaces
        .iter()
        .flat_map(|one| &one.checks)
        .chain(&answer.host)
        .any(|check| check.grade == Grade::Error);
    if args.json {
        print_json(&answer)?;
    } else {
        print(|out| {
            writeln!(out, "host")?;
            text(out, &answer.host)?;
            for Examined { name, checks } in &answer.interfaces {
                writeln!(out, "{name}")?;
                text(out, checks)?;
            }
            Ok(())
        })?;
    }
    Ok(if is_bad { Exit::Findings } else { Exit::Ok })
}

fn examine(interface: &Interface) -> Vec<Check> {
    // Also what another version of portguard runs there: `load` says what to do about that.
    let layout = Layout::of(&interface.name);
    let mut layouts = layout.of_other_versions();
    layouts.push(layout);
    let own: Vec<u32> = layouts
        .iter()
        .flat_map(|layout| [Direction::Ingress, Direction::Egress].map(|way| layout.link(way)))
        .filter_map(|pin| attach::inspect(&pin).ok().flatten())
        .map(|link| link.program)
        .collect();
    check_interface(interface, &own)
}

fn text(out: &mut dyn Write, checks: &[Check]) -> io::Result<()> {
    for Check {
        name,
        grade,
        found,
        why,
        todo,
    } in checks
    {
        let (word, colour) = match grade {
            Grade::Ok => ("ok", "32"),
            Grade::Note => ("note", "36"),
            Grade::Warning => ("warning", "33"),
            Grade::Error => ("error", "31"),
        };
        // Taken out again where there is to be no colour.
        let label = format!("  \x1b[{colour}m{word:<8}\x1b[0m{name:<12} ");
        hanging(out, &label, found)?;
        if *grade > Grade::Ok {
            hanging(out, &format!("{:23}why: ", ""), why)?;
        }
        if let Some(todo) = todo {
            hanging(out, &format!("{:23}do:  ", ""), todo)?;
        }
    }
    Ok(())
}

/// What `load` says of the same checks: only what should worry.
pub(super) fn warn(interfaces: &[Interface]) {
    let mut err = stderr();
    let host = check_host();
    let of_interfaces = interfaces.iter().flat_map(|interface| {
        examine(interface)
            .into_iter()
            .map(|check| (interface.name.as_str(), check))
    });
    for (place, check) in host
        .into_iter()
        .map(|check| ("host", check))
        .chain(of_interfaces)
    {
        if check.grade >= Grade::Warning {
            let _ = writeln!(err, "{place}: warning[{}]: {}", check.name, check.found);
            if let Some(todo) = check.todo {
                let _ = writeln!(err, "  hint: {todo}");
            }
        }
    }
}
