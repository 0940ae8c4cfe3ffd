//! Interfaces that were deleted and come back: the guard went with them, and is put in force again.

use anyhow::Context as _;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::newcomers::Newcomers;
use portguard_kernel::pins;
pub(super) use portguard_kernel::recovery::reattach::is_torn;
use portguard_kernel::recovery::reattach::reattach;

/// Group mask of events about interfaces.
const LINK_EVENTS: u32 = 1;

/// Looks once, and guards again what came back.
///
/// # Errors
/// If an interface cannot be guarded again.
pub(super) fn look() -> anyhow::Result<()> {
    let names = pins::lock().and_then(|lock| reattach(&lock))?;
    for interface in names {
        tracing::info!(%interface, "is back, and guarded again");
    }
    Ok(())
}

/// Looks, and waits for the next change of an interface, for ever. What cannot be mended is said, and tried again.
///
/// # Errors
/// If the kernel sends no events.
pub(super) fn watch(mut newcomers: Newcomers) -> anyhow::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
    socket
        .bind(&SocketAddr::new(0, LINK_EVENTS))
        .context("cannot listen to changes of interfaces")?;
    loop {
        // After the socket is open: what changes from now on is not missed.
        look_again();
        newcomers.look();
        // Events that were lost are as good as events: there is something to look at.
        let _ = socket.recv_from_full();
    }
}

/// Looks, and says what cannot be mended.
pub(super) fn look_again() {
    if let Err(error) = look() {
        tracing::warn!("{error:#}");
    }
}
