//! A port scanner: a raw SYN to every port, answers by capture.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{PacketSocket, wait_readable};
use crate::frames::{Frame, Ipv4, Ipv6, Tcp};
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
    /// A reset: it reached the stack, and nobody listens.
    Closed,
    /// The second step of the handshake: it reached a listener.
    Open,
}

/// The answer of every port that was asked.
#[derive(Debug, Clone)]
pub struct Scan {
    answers: Vec<Option<Answer>>,
    /// How many are [`Answer::Silent`].
    silent: usize,
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
    // A port of its own for each scan, below the range from which the kernel takes them.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;

    let mut scan = Scan {
        answers: vec![None; 65_536],
        silent: 0,
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
                    socket.send(&syn(from, to, target, own, *port))?;
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

fn syn(from: &Interface, to: &Interface, target: IpAddr, own: u16, port: u16) -> Vec<u8> {
    let frame = Frame::between(from, to);
    let frame = match target {
        IpAddr::V4(target) => frame.ipv4(Ipv4::new(from.v4(), target)),
        IpAddr::V6(target) => frame.ipv6(Ipv6::new(from.v6(), target)),
    };
    frame.tcp(Tcp::syn(own, port)).build()
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

    /// Takes a captured frame as an answer if it is one: from the target, TCP, to our own port.
    fn note(&mut self, frame: &[u8], target: IpAddr, own: u16) {
        let ethertype = frame.get(12..14);
        let transport = match target {
            IpAddr::V4(target)
                if ethertype == Some(&[0x08, 0x00])
                    && frame.get(14) == Some(&0x45)
                    && frame.get(23) == Some(&6)
                    && frame.get(26..30) == Some(&target.octets()) =>
            {
                frame.get(34..48)
            }
            IpAddr::V6(target)
                if ethertype == Some(&[0x86, 0xdd])
                    && frame.get(20) == Some(&6)
                    && frame.get(22..38) == Some(&target.octets()) =>
            {
                frame.get(54..68)
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        let Some([a, b, c, d, .., flags]) = transport else {
            return;
        };
        let port = u16::from_be_bytes([*a, *b]);
        if u16::from_be_bytes([*c, *d]) != own || self.answer(port).is_none() {
            return;
        }
        if flags & Tcp::RST != 0 {
            // An open port answers once more when our own stack has reset its handshake: it stays open.
            if self.answer(port) == Some(Answer::Silent) {
                self.set(port, Answer::Closed);
            }
        } else if flags & Tcp::SYN != 0 {
            self.set(port, Answer::Open);
        }
    }
}
