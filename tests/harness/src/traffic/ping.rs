//! Echo requests.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::wait_readable;

/// Sends one echo request through a raw socket; the time until its reply, `None` if none came in time.
pub fn ping(target: IpAddr, timeout: Duration) -> Result<Option<Duration>> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let (domain, protocol, request, reply) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket =
        Socket::new(domain, Type::RAW, Some(protocol)).context("opening an ICMP socket")?;
    socket.set_nonblocking(true)?;

    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let tail = [
        b'p', b'g', high, low, b'p', b'o', b'r', b't', b'g', b'u', b'a', b'r', b'd', b'!',
    ];
    let mut message = vec![request, 0, 0, 0];
    message.extend_from_slice(&tail);
    if target.is_ipv4() {
        // The kernel fills in the checksum of ICMPv6 only.
        let sum = crate::frames::checksum(&[&message]).to_be_bytes();
        message.splice(2..4, sum);
    }
    let sent = Instant::now();
    socket
        .send_to(&message, &SocketAddr::new(target, 0).into())
        .context("sending an echo request")?;

    let deadline = sent + timeout;
    let mut buffer = [0; 2048];
    while wait_readable(&socket, deadline)? {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("reading an echo reply"),
        };
        let received = buffer.get(..length).unwrap_or_default();
        // IPv4 raw sockets show the IP header, too; the host's own sends come without options.
        let header = match target {
            IpAddr::V4(_) => usize::from(received.first().copied().unwrap_or(0) & 15) * 4,
            IpAddr::V6(_) => 0,
        };
        let icmp = received.get(header..).unwrap_or_default();
        if icmp.first() == Some(&reply) && icmp.get(4..) == Some(&tail) {
            return Ok(Some(sent.elapsed()));
        }
    }
    Ok(None)
}
