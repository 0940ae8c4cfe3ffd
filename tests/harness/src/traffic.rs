//! What hosts say to each other.
//!
//! Functions act in the network of the calling thread: call them inside [`crate::net::Host::run`]. Servers take the host
//! and run until they are dropped. Every wait has an end, and is for an event.

mod many;
mod packet;
mod ping;
mod scan;
mod tcp;
mod udp;

use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use many::{Datagrams, connect_each};
pub use packet::{PacketSocket, contains};
pub use ping::ping;
pub use scan::{Answer, Scan, scan_tcp, scan_udp};
pub use tcp::{
    Connection, Listeners, TcpEcho, begin_connecting, connect, connect_between, connect_from,
    exchange_tcp, raise_file_limit,
};
pub use udp::{
    UdpEcho, count_datagrams, exchange_udp, raw_socket, receive_datagram, udp_socket, udp_socket_on,
};

/// Waits until the descriptor can be read (or has failed, which reading tells); `false` at the deadline.
pub fn wait_readable(descriptor: &impl AsFd, deadline: Instant) -> Result<bool> {
    wait_ready(descriptor, PollFlags::POLLIN, deadline)
}

pub(crate) fn wait_ready(
    descriptor: &impl AsFd,
    what: PollFlags,
    deadline: Instant,
) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a poll must not spin through the last millisecond.
        let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(descriptor.as_fd(), what)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
