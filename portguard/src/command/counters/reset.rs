//! `portguard counters reset`: count from now, and keep a record.

use std::env;
use std::io::Write as _;

use clap::Args;
use serde::Serialize;

use crate::command::table::hanging;
use crate::stderr::stderr;
use crate::stdout::{print, print_field};
use portguard_fleet::now;
use portguard_kernel::pins;
use portguard_observe::counters::Reset;
use portguard_observe::observe;
use portguard_policy::error::Exit;
use portguard_policy::human::{count, plain, time};

/// Count from now on; what was counted before stays on record
///
/// The kernel's counters only ever grow. This remembers what they are, who asked and why, and shows what came after.
/// `portguard counters --raw` still shows everything since the guard was loaded.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard counters reset --note \"after the upgrade\"")]
pub(super) struct ResetArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Show the record of resets; reset nothing
    #[arg(long, conflicts_with = "note")]
    list: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Record {
    name: String,
    resets: Vec<Reset>,
}

pub(super) fn run(args: &ResetArgs) -> anyhow::Result<Exit> {
    let _lock = if args.list { None } else { Some(pins::lock()?) };
    let mut interfaces = Vec::new();
    for one in observe::interfaces(args.interface.as_deref())? {
        let mut resets = one.resets.clone().unwrap_or_default();
        if !args.list {
            let report = one.report(true);
            resets.record.push(Reset {
                at: now(),
                by: who(),
                note: args.note.clone(),
                generation: report.generation,
                digest: report.digest,
                totals: report.totals,
                violations: report.violations,
            });
            resets.snapshot = one.raw;
            resets.mark = Some(one.talkers.mark());
            resets.write(&one.layout.shared())?;
        }
        let (name, resets) = (one.name, resets.record);
        interfaces.push(Record { name, resets });
    }
    if args.json {
        print_field("interfaces", &interfaces)?;
    } else if args.list {
        list(&interfaces)?;
    } else {
        let mut err = stderr();
        for record in &interfaces {
            let packets = record.resets.last().map_or(0, |reset| reset.totals.packets);
            let _ = writeln!(
                err,
                "{}: counting from now; the record has {} until here",
                plain(&record.name),
                count(packets, "packet")
            );
        }
        if interfaces.is_empty() {
            let _ = writeln!(err, "no interface is guarded");
        }
    }
    Ok(Exit::Ok)
}

fn list(interfaces: &[Record]) -> anyhow::Result<()> {
    print(|out| {
        for record in interfaces {
            for reset in &record.resets {
                let text = format!(
                    "{} by {}, generation {}, {}, {}{}",
                    time(reset.at),
                    plain(&reset.by),
                    reset.generation,
                    count(reset.totals.packets, "packet"),
                    count(reset.violations.packets, "violation"),
                    reset
                        .note
                        .as_deref()
                        .map_or(String::new(), |note| format!(": {}", plain(note))),
                );
                hanging(out, &format!("{}: ", plain(&record.name)), &text)?;
            }
        }
        Ok(())
    })
}

/// Who asked: for the record, not for access control.
fn who() -> String {
    ["SUDO_USER", "USER"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}
