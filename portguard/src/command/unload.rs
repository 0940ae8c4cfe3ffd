//! `portguard unload`: remove exactly what `load` put there.

use std::io::{self, Write as _};

use clap::Args;
use serde::Serialize;

use portguard_kernel::generation::publish::unload;
use portguard_kernel::pins::bpffs::{self, Layout, Lock};
use portguard_kernel::recovery::settle::{settle, sweep_stale};
use portguard_policy::error::{Exit, Fault};

/// Stop guarding: remove what `load` put there, and nothing else
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Remove what is left of guards whose interfaces are gone, for good, and nothing else
    #[arg(long, conflicts_with = "interfaces")]
    stale: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    schema: u32,
    /// Interfaces that were guarded and are no longer.
    unloaded: Vec<String>,
    /// Directories of pins that were stale.
    removed: Vec<String>,
}

/// Unloads. Nothing loaded is fine where no interface was named, and a usage error where one was.
///
/// # Errors
/// What the system refuses.
pub fn run(args: &UnloadArgs) -> anyhow::Result<Exit> {
    let lock = bpffs::lock()?;
    let mut answer = Answer {
        schema: 1,
        ..Answer::default()
    };
    if args.stale {
        answer.removed = sweep_stale(&lock, true)?;
    } else {
        answer.unloaded = all(&lock, &args.interfaces)?;
    }
    if args.json {
        super::print_json(&answer)?;
    } else {
        tell(&answer, args.stale)?;
    }
    Ok(Exit::Ok)
}

fn all(lock: &Lock, named: &[String]) -> anyhow::Result<Vec<String>> {
    settle(lock)?;
    let layouts: Vec<Layout> = if named.is_empty() {
        bpffs::layouts()
            .into_iter()
            .filter(|layout| layout.interface().1)
            .collect()
    } else {
        named.iter().map(|name| Layout::of(name)).collect()
    };
    let mut unloaded = Vec::new();
    for layout in &layouts {
        let (name, _) = layout.interface();
        let mut found = unload(lock, layout)?;
        for other in layout.of_other_versions() {
            found |= unload(lock, &other)?;
        }
        if !found {
            return Err(Fault::usage(format!("`{name}` is not guarded"))
                .hint("`portguard status` lists the guarded interfaces")
                .into());
        }
        unloaded.push(name);
    }
    Ok(unloaded)
}

fn tell(answer: &Answer, is_stale: bool) -> io::Result<()> {
    let mut err = io::stderr().lock();
    for name in &answer.unloaded {
        writeln!(err, "{name}: no longer guarded")?;
    }
    for directory in &answer.removed {
        writeln!(err, "removed `{directory}`")?;
    }
    match (
        is_stale,
        answer.unloaded.is_empty(),
        answer.removed.is_empty(),
    ) {
        (true, _, true) => writeln!(err, "nothing is stale"),
        (false, true, _) => writeln!(err, "no interface is guarded"),
        _ => Ok(()),
    }
}
