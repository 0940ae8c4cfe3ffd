//! A host that listens on every port: the most that `drift` may have to tell of.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use anyhow::Result;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use portguard_harness::net::Process;
use portguard_harness::traffic::raise_file_limit;

use super::{PATIENCE, Stage};

/// Ports of one process, which may not have open so many files as there are ports.
const EACH: u16 = 8_192;
/// What it says when it listens.
const READY: &str = "listening";

/// For the processes that [`listen_everywhere`] starts.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    first: u16,
    last: u16,
}

/// Processes on the demo's host that listen on all TCP ports that are free, until they are dropped.
pub(super) fn listen_everywhere(stage: &Stage) -> Result<Vec<Process>> {
    let program = std::env::current_exe()?;
    let mut all = Vec::new();
    for first in (0..=u16::MAX).step_by(EACH.into()) {
        let (from, last) = (first.max(1), first + (EACH - 1));
        let mut command = Command::new(&program);
        command.args(["listen", &from.to_string(), &last.to_string()]);
        all.push(stage.start(&mut command)?);
    }
    for process in &all {
        process.wait_for(READY, PATIENCE)?;
    }
    Ok(all)
}

/// Listens, until it is ended, or who started it is.
pub(crate) fn listen(args: &ListenArgs) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    raise_file_limit()?;
    let all = (args.first..=args.last).map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    // Some are the demo's own.
    let held: Vec<TcpListener> = all.filter_map(Result::ok).collect();
    writeln!(io::stdout(), "{READY} on {} ports", held.len())?;
    loop {
        thread::park();
    }
}
