//! A port scanner: a raw SYN or datagram to every port, answers by capture.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{PacketSocket, wait_readable};
use crate::frames::{Frame, Ipv4, Ipv6, Tcp, Udp, number};
use crate::net::Interface;

/// Frames between two looks at the answers.
const BATCH: usize = 256;
/// Ports without an answer are asked again this often, in case a frame got lost in a full queue.
const ROUNDS: usize = 3;
/// A round ends when no answer came for so long.
const QUIET: Duration = Duration::from_millis(150);

/// What came back from a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// Nothing: dropped.
    Silent,
    /// A reset, or "port unreachable": it reached the stack, and nobody listens.
    Closed,
    /// The second step of the handshake, or a datagram: it reached a listener.
    Open,
}

/// The answer of every port that was asked.
#[derive(Debug, Clone)]
pub struct Scan {
    answers: Vec<Option<Answer>>,
    /// How many are [`Answer::Silent`].
    silent: usize,
    /// What was sent.
    probe: Probe,
}

/// What is sent to every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Syn,
    Datagram,
}

/// Scans TCP ports of an address of the interface at the other end of the link, from the first address of its family that
/// the near interface has. All 65,536 ports take about a second; the function gives up at the timeout with an error.
pub fn scan_tcp(
    from: &Interface,
    to: &Interface,
    target: IpAddr,
    ports: impl IntoIterator<Item = u16>,
    timeout: Duration,
) -> Result<Scan> {
    scan(Probe::Syn, from, to, target, ports, timeout)
}

/// As [`scan_tcp`] with datagrams: a port is open if its listener answers. How many "port unreachable" a stack sends a
/// second is limited, so that silence tells nothing about a host without a guard.
pub fn scan_udp(
    from: &Interface,
    to: &Interface,
    target: IpAddr,
    ports: impl IntoIterator<Item = u16>,
    timeout: Duration,
) -> Result<Scan> {
    scan(Probe::Datagram, from, to, target, ports, timeout)
}

fn scan(
    probe: Probe,
    from: &Interface,
    to: &Interface,
    target: IpAddr,
    ports: impl IntoIterator<Item = u16>,
    timeout: Duration,
) -> Result<Scan> {
    // A port of its own for each scan, below the range from which the kernel takes them.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;

    let mut scan = Scan {
        answers: vec![None; 65_536],
        silent: 0,
        probe,
    };
    for port in ports {
        scan.set(port, Answer::Silent);
    }
    let deadline = Instant::now() + timeout;
    from.host.run(|| {
        let mut socket = PacketSocket::open(&from.name)?;
        for round in 0..ROUNDS {
            let waiting = scan.with(Answer::Silent);
            // Neighbour discovery of the other side holds few packets: let one port go ahead.
            let ahead = usize::from(round == 0);
            let (first, rest) = waiting.split_at_checked(ahead).unwrap_or_default();
            for batch in std::iter::once(first).chain(rest.chunks(BATCH)) {
                for port in batch {
                    socket.send(&ask(probe, from, to, target, own, *port))?;
                }
                if Instant::now() >= deadline {
                    bail!("scan of {target} did not end within {timeout:?}");
                }
                if round == 0 && batch.len() == ahead {
                    wait_readable(&socket, Instant::now() + QUIET)?;
                }
                socket.drain(|frame| scan.note(frame, target, own))?;
            }
            while scan.silent > 0 && wait_readable(&socket, deadline.min(Instant::now() + QUIET))? {
                socket.drain(|frame| scan.note(frame, target, own))?;
            }
        }
        Ok(())
    })?;
    Ok(scan)
}

fn ask(
    probe: Probe,
    from: &Interface,
    to: &Interface,
    target: IpAddr,
    own: u16,
    port: u16,
) -> Vec<u8> {
    let frame = Frame::between(from, to);
    let frame = match target {
        IpAddr::V4(target) => frame.ipv4(Ipv4::new(from.v4(), target)),
        IpAddr::V6(target) => frame.ipv6(Ipv6::new(from.v6(), target)),
    };
    match probe {
        Probe::Syn => frame.tcp(Tcp::syn(own, port)).build(),
        Probe::Datagram => frame.udp(Udp::new(own, port)).payload(*b"knock").build(),
    }
}

impl Scan {
    /// The answer of a port; `None` if it was not asked.
    pub fn answer(&self, port: u16) -> Option<Answer> {
        self.answers.get(usize::from(port)).copied().flatten()
    }

    /// Ports that gave this answer, in order.
    pub fn with(&self, answer: Answer) -> Vec<u16> {
        (0..=u16::MAX)
            .filter(|port| self.answer(*port) == Some(answer))
            .collect()
    }

    /// Ports where somebody listens.
    pub fn open(&self) -> Vec<u16> {
        self.with(Answer::Open)
    }

    /// Ports that sent a reset.
    pub fn closed(&self) -> Vec<u16> {
        self.with(Answer::Closed)
    }

    /// Ports that sent nothing.
    pub fn silent(&self) -> Vec<u16> {
        self.with(Answer::Silent)
    }

    fn set(&mut self, port: u16, answer: Answer) {
        if let Some(slot) = self.answers.get_mut(usize::from(port)) {
            self.silent -= usize::from(*slot == Some(Answer::Silent));
            self.silent += usize::from(answer == Answer::Silent);
            *slot = Some(answer);
        }
    }

    /// Takes a captured frame as an answer if it is one: from the target, to our own port.
    fn note(&mut self, frame: &[u8], target: IpAddr, own: u16) {
        let Some((protocol, rest)) = payload_of(frame, target) else {
            return;
        };
        match (self.probe, protocol, rest) {
            (Probe::Syn, number::TCP, [a, b, c, d, _, _, _, _, _, _, _, _, _, flags, ..])
                if [*c, *d] == own.to_be_bytes() =>
            {
                let port = u16::from_be_bytes([*a, *b]);
                if flags & Tcp::RST != 0 {
                    self.refused(port);
                } else if flags & Tcp::SYN != 0 {
                    self.answered(port);
                }
            }
            (Probe::Datagram, number::UDP, [a, b, c, d, ..]) if [*c, *d] == own.to_be_bytes() => {
                self.answered(u16::from_be_bytes([*a, *b]));
            }
            // The header that could not be delivered follows the eight bytes of the message, and its ports follow that.
            (Probe::Datagram, number::ICMPV4, [3, 3, ..]) => {
                self.undelivered(rest.get(28..32), own);
            }
            (Probe::Datagram, number::ICMPV6, [1, 4, ..]) => {
                self.undelivered(rest.get(48..52), own);
            }
            _ => {}
        }
    }

    fn undelivered(&mut self, ports: Option<&[u8]>, own: u16) {
        if let Some([a, b, c, d]) = ports
            && [*a, *b] == own.to_be_bytes()
        {
            self.refused(u16::from_be_bytes([*c, *d]));
        }
    }

    fn refused(&mut self, port: u16) {
        // An open port answers once more when our own stack has reset its handshake: it stays open.
        if self.answer(port) == Some(Answer::Silent) {
            self.set(port, Answer::Closed);
        }
    }

    fn answered(&mut self, port: u16) {
        if self.answer(port).is_some() {
            self.set(port, Answer::Open);
        }
    }
}

/// Protocol and content of a captured packet, if it is from the target; such answers carry neither options nor extensions.
fn payload_of(frame: &[u8], target: IpAddr) -> Option<(u8, &[u8])> {
    let ethertype = frame.get(12..14)?;
    match target {
        IpAddr::V4(target)
            if ethertype == number::IPV4.to_be_bytes()
                && frame.get(26..30) == Some(&target.octets()) =>
        {
            (frame.get(14) == Some(&0x45)).then_some((*frame.get(23)?, frame.get(34..)?))
        }
        IpAddr::V6(target)
            if ethertype == number::IPV6.to_be_bytes()
                && frame.get(22..38) == Some(&target.octets()) =>
        {
            Some((*frame.get(20)?, frame.get(54..)?))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
