//! `portguard unload`: remove exactly what `load` put there.

use std::io::{self, Write as _};

use clap::Args;

use crate::error::{Exit, Fault};
use crate::kernel::bpffs::{self, Layout};
use crate::kernel::publish::unload;
use crate::kernel::settle::follow_renames;

/// Stop guarding: remove what `load` put there, and nothing else
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
}

/// Unloads. Nothing loaded is fine where no interface was named, and a usage error where one was.
///
/// # Errors
/// What the system refuses.
pub fn run(args: &UnloadArgs) -> anyhow::Result<Exit> {
    let lock = bpffs::lock()?;
    follow_renames(&lock)?;
    let layouts: Vec<Layout> = if args.interfaces.is_empty() {
        bpffs::layouts()
            .into_iter()
            .filter(|layout| layout.interface().1)
            .collect()
    } else {
        args.interfaces
            .iter()
            .map(|name| Layout::of(name))
            .collect()
    };
    let mut err = io::stderr().lock();
    if layouts.is_empty() {
        writeln!(err, "no interface is guarded")?;
    }
    for layout in &layouts {
        let (name, _) = layout.interface();
        let mut found = unload(&lock, layout)?;
        for other in layout.of_other_versions() {
            found |= unload(&lock, &other)?;
        }
        if !found {
            return Err(Fault::usage(format!("`{name}` is not guarded"))
                .hint("`portguard status` lists the guarded interfaces")
                .into());
        }
        writeln!(err, "{name}: no longer guarded")?;
    }
    Ok(Exit::Ok)
}
