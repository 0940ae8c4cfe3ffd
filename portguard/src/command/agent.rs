//! `portguard agent`: stays, and guards interfaces again that were deleted and come back.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Args;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::error::Exit;
use crate::kernel::bpffs;
use crate::kernel::mend::mend;

/// Group mask of events about interfaces.
const LINK_EVENTS: u32 = 1;

/// Stay, and guard interfaces again that were deleted and come back
///
/// The guard itself needs no process: only an interface that is made anew is without one until somebody loads it.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Look once, and end
    #[arg(long)]
    once: bool,
}

/// Looks, and waits for the next change of an interface.
///
/// # Errors
/// If the kernel sends no events. What cannot be mended is said, and tried again.
pub fn run(args: &AgentArgs) -> anyhow::Result<Exit> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
    socket
        .bind(&SocketAddr::new(0, LINK_EVENTS))
        .context("cannot listen to changes of interfaces")?;
    loop {
        // After the socket is open: what changes from now on is not missed.
        let looked = bpffs::lock().and_then(|lock| mend(&lock));
        let mut err = io::stderr().lock();
        match looked {
            Ok(names) => {
                for name in names {
                    writeln!(err, "{name}: is back, and guarded again")?;
                }
            }
            Err(error) if args.once => return Err(error),
            Err(error) => writeln!(err, "warning: {error:#}")?,
        }
        drop(err);
        if args.once {
            return Ok(Exit::Ok);
        }
        // Events that were lost are as good as events: there is something to look at.
        let _ = socket.recv_from_full();
    }
}
