//! What is sent to the guarded host: every kind of traffic, and how one sees whether it arrived.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use portguard_harness::frames::{self, Extension, Frame, Ipv4, Ipv6, Tcp, Udp};
use portguard_harness::traffic::{PacketSocket, connect_from, exchange_udp, ping};

use super::stage::{ROGUE, Stage};

/// Long enough for an answer on this wire, short enough to wait for silence.
const WAIT: Duration = Duration::from_millis(250);

/// What enforcing should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Passes,
    Dropped,
}

/// One thing that somebody tries.
pub(super) struct Probe {
    pub(super) from: &'static str,
    pub(super) what: &'static str,
    pub(super) fate: Fate,
    /// Shown behind the outcome.
    pub(super) why: &'static str,
    /// Sends; whether an answer came back.
    pub(super) send: fn(&Stage) -> Result<bool>,
}

/// All probes, in the order in which they are shown.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn probes() -> Vec<Probe> {
    use Fate::{Dropped, Passes};
    let probe = |from, what, fate, why, send| Probe {
        from,
        what,
        fate,
        why,
        send,
    };
    vec![
        probe(
            "node-2",
            "TCP 443, HTTPS of the application",
            Passes,
            "documented",
            |stage| tcp(stage, "10.77.0.2", "10.77.0.1", 443),
        ),
        probe(
            "node-2",
            "the same over IPv6",
            Passes,
            "documented",
            |stage| tcp(stage, "fd77::2", "fd77::1", 443),
        ),
        probe(
            "admin",
            "TCP 2101, HTTP of the node daemon",
            Passes,
            "documented",
            |stage| tcp(stage, "10.77.0.3", "10.77.0.1", 2101),
        ),
        probe(
            "stranger",
            "TCP 2101",
            Dropped,
            "undocumented-peer",
            |stage| tcp(stage, "10.77.0.66", "10.77.0.1", 2101),
        ),
        probe(
            "stranger",
            "TCP 2101 over IPv6",
            Dropped,
            "undocumented-peer",
            |stage| tcp(stage, "fd77::66", "fd77::1", 2101),
        ),
        probe(
            "node-2",
            "TCP 9999, a service that nobody documented",
            Dropped,
            "undocumented-port",
            |stage| tcp(stage, "10.77.0.2", "10.77.0.1", ROGUE),
        ),
        probe(
            "node-2",
            "UDP 9999, 4,000 bytes in fragments",
            Dropped,
            "undocumented-port",
            |stage| {
                let target = SocketAddr::new("10.77.0.1".parse()?, ROGUE);
                stage.others.run(|| exchange_udp(target, &[7; 4000], WAIT))
            },
        ),
        probe(
            "node-2",
            "TCP 9999 behind IPv4 options",
            Dropped,
            "undocumented-port",
            |stage| {
                raw(stage, &|base, stage| {
                    let (from, to) = v4(stage)?;
                    Ok(base
                        .ipv4(Ipv4::new(from, to).options([1, 1, 1, 1]))
                        .tcp(syn()))
                })
            },
        ),
        probe(
            "node-2",
            "TCP 9999 behind IPv6 extension headers",
            Dropped,
            "undocumented-port",
            |stage| {
                raw(stage, &|base, stage| {
                    let (from, to) = v6(stage)?;
                    Ok(base
                        .ipv6(Ipv6::new(from, to))
                        .extension(Extension::destination(1))
                        .extension(Extension::fragment(0, false, 7))
                        .tcp(syn()))
                })
            },
        ),
        probe(
            "node-2",
            "TCP 9999, tagged for VLAN 0",
            Dropped,
            "undocumented-port",
            |stage| {
                raw(stage, &|base, stage| {
                    let (from, to) = v4(stage)?;
                    Ok(base.tag(0x8100, 0).ipv4(Ipv4::new(from, to)).tcp(syn()))
                })
            },
        ),
        probe(
            "node-2",
            "UDP 9999 in fragments of eight bytes",
            Dropped,
            "undocumented-port",
            tiny_fragments,
        ),
        probe(
            "stranger",
            "TCP 22, the site's management access",
            Passes,
            "management",
            |stage| tcp(stage, "10.77.0.66", "10.77.0.1", 22),
        ),
        probe(
            "node-2",
            "ping, and neighbour discovery on the way",
            Passes,
            "icmp-echo",
            |stage| {
                stage
                    .others
                    .run(|| Ok(ping("fd77::1".parse()?, WAIT)?.is_some()))
            },
        ),
    ]
}

fn tcp(stage: &Stage, from: &str, to: &str, port: u16) -> Result<bool> {
    let from: IpAddr = from.parse()?;
    let to = SocketAddr::new(to.parse()?, port);
    stage
        .others
        .run(|| Ok(connect_from(from, to, WAIT).is_connected()))
}

/// Source port of crafted segments; no socket has it, so that the answer is the proof that a listener saw them.
const CRAFTED: u16 = 40_404;

fn syn() -> Tcp {
    Tcp::syn(CRAFTED, ROGUE)
}

fn v4(stage: &Stage) -> Result<(std::net::Ipv4Addr, std::net::Ipv4Addr)> {
    Ok(("10.77.0.2".parse()?, stage.link.left.v4()))
}

fn v6(stage: &Stage) -> Result<(std::net::Ipv6Addr, std::net::Ipv6Addr)> {
    Ok(("fd77::2".parse()?, stage.link.left.v6()))
}

/// Sends a crafted segment and waits for what TCP answers, handshake or reset.
fn raw(stage: &Stage, craft: &(dyn Fn(Frame, &Stage) -> Result<Frame> + Sync)) -> Result<bool> {
    let base = Frame::between(&stage.link.right, &stage.link.left);
    let frame = craft(base, stage)?.build();
    answered(stage, &[frame])
}

/// A datagram in the smallest fragments that there are: the first holds the UDP header and nothing else.
fn tiny_fragments(stage: &Stage) -> Result<bool> {
    let (from, to) = v4(stage)?;
    let whole = Frame::between(&stage.link.right, &stage.link.left)
        .ipv4(Ipv4::new(from, to))
        .udp(Udp::new(CRAFTED, ROGUE))
        .payload(b"portguard demo!!")
        .build();
    let parts = frames::fragments(&whole, 77, &[0..8, 8..16, 16..24])?;
    answered(stage, &parts)
}

fn answered(stage: &Stage, sent: &[Vec<u8>]) -> Result<bool> {
    stage.others.run(|| {
        let mut socket = PacketSocket::open(&stage.link.right.name)?;
        for frame in sent {
            socket.send(frame)?;
        }
        let deadline = Instant::now() + WAIT;
        let port = CRAFTED.to_be_bytes();
        let found = socket.find(deadline, |frame| {
            // Towards our MAC address, with the crafted port as the destination.
            frame.starts_with(&stage.link.right.mac)
                && frame
                    .windows(4)
                    .any(|w| w == [0x27, 0x0f, port[0], port[1]])
        })?;
        Ok(found.is_some())
    })
}
