//! The far end of a conversation: raw frames, and the sockets of the host that they are for.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Icmp, Ipv4, Ipv6, Tcp, Udp, fragments, icmp_error, number};
use portguard_harness::traffic::{
    PacketSocket, begin_connecting, receive_datagram, udp_socket, wait_readable,
};

use super::{ASKED, To};
use crate::guard::{Guarded, SOON};

/// Where its sequence numbers begin.
const BASE: u32 = 1_000;
/// Whom it sends to where it sends to many.
const GROUPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3)),
    IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234)),
];

/// Addresses that nobody else has, at the link address of the peer.
pub(super) fn addresses(ours: IpAddr) -> [IpAddr; 2] {
    [99, 100].map(|last| match ours {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 77, 0, last)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into())),
    })
}

pub(super) struct Far<'a> {
    guarded: &'a Guarded,
    wire: &'a RefCell<PacketSocket>,
    /// The host's address, and its port.
    ours: IpAddr,
    port: u16,
    /// Whether what it sends arrives.
    pub(super) is_heard: bool,
    pub(super) from: u16,
    /// What the host's end acknowledges next.
    acknowledged: u32,
    listener: Option<TcpListener>,
    service: Option<UdpSocket>,
    accepted: Option<TcpStream>,
    /// What the host asks from: datagrams, and a connection.
    own: UdpSocket,
    connecting: Option<TcpStream>,
    is_for_many: bool,
}

impl<'a> Far<'a> {
    pub(super) fn new(
        guarded: &'a Guarded,
        wire: &'a RefCell<PacketSocket>,
        (ours, port): (IpAddr, u16),
        to: To,
    ) -> Result<Self> {
        let host = &guarded.link.left.host;
        let is_for_many = to == To::Many;
        let (listener, service) = host.run(|| {
            let unspecified: IpAddr = if ours.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let at = if is_for_many { unspecified } else { ours };
            Ok(match to {
                To::Nobody => (None, None),
                To::Undocumented | To::Others | To::Many => (
                    Some(TcpListener::bind(SocketAddr::new(ours, port))?),
                    Some(udp_socket(SocketAddr::new(at, port))?),
                ),
            })
        })?;
        if let (Some(service), true) = (&service, is_for_many) {
            host.run(|| {
                match (GROUPS, ours) {
                    ([IpAddr::V4(group), _], IpAddr::V4(ours)) => {
                        service.join_multicast_v4(&group, &ours)?;
                    }
                    ([_, IpAddr::V6(group)], _) => {
                        service.join_multicast_v6(&group, guarded.link.left.index)?;
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(Self {
            guarded,
            wire,
            ours,
            port,
            is_heard: true,
            from: 40_000 + port % 1000,
            acknowledged: 1,
            listener,
            service,
            accepted: None,
            own: host.run(|| udp_socket(SocketAddr::new(ours, 0)))?,
            connecting: None,
            is_for_many,
        })
    }

    fn theirs(&self) -> IpAddr {
        addresses(self.ours)[0]
    }

    /// A frame with its IP header.
    fn ip(&self, from: IpAddr, to: IpAddr) -> Frame {
        let link = &self.guarded.link;
        let mut frame = Frame::between(&link.right, &link.left);
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                if to.is_multicast() {
                    let [_, b, c, d] = to.octets();
                    frame = Frame::new([1, 0, 0x5e, b & 0x7f, c, d], link.right.mac);
                }
                frame.ipv4(Ipv4::new(from, to))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                if let (true, [.., a, b, c, d]) = (to.is_multicast(), to.octets()) {
                    frame = Frame::new([0x33, 0x33, a, b, c, d], link.right.mac);
                }
                frame.ipv6(Ipv6::new(from, to))
            }
            _ => frame,
        }
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        self.guarded.receive(&self.wire.borrow(), frame, 1)
    }

    /// A segment; `after` counts from the first byte that it says.
    pub(super) fn segment(&mut self, flags: u8, bytes: &[u8], after: u32) -> Result<()> {
        let mut segment = Tcp::new(self.from, self.port, flags);
        segment.sequence = BASE + after + u32::from(flags & Tcp::SYN == 0);
        segment.acknowledged = if flags & Tcp::ACK == 0 {
            0
        } else {
            self.acknowledged
        };
        let frame = self.ip(self.theirs(), self.ours);
        self.send(&frame.tcp(segment).payload(bytes).build())
    }

    /// The number of a segment of the host's, from and to these ports, with these flags.
    fn hears_segment(&mut self, from: u16, to: u16, flags: u8) -> Result<u32> {
        let at = if self.ours.is_ipv4() { 34 } else { 54 };
        let wanted = [from.to_be_bytes(), to.to_be_bytes()].concat();
        let is_it = |frame: &[u8]| {
            frame.get(at..at + 4) == Some(&wanted[..]) && frame.get(at + 13) == Some(&flags)
        };
        let found = self.wire.borrow_mut().find(Instant::now() + SOON, is_it)?;
        let found = found.with_context(|| format!("no segment from {from} to {to}"))?;
        let number = found.get(at + 4..at + 8).context("a number")?;
        Ok(u32::from_be_bytes(number.try_into()?))
    }

    /// Asks to be connected, and goes on as who is.
    pub(super) fn opens(&mut self) -> Result<()> {
        self.segment(Tcp::SYN, b"", 0)?;
        if self.is_heard && self.listener.is_some() {
            let number = self.hears_segment(self.port, self.from, Tcp::SYN | Tcp::ACK)?;
            self.acknowledged = number.wrapping_add(1);
        }
        self.segment(Tcp::ACK, b"", 0)
    }

    /// Who listens hears what was said, if it may, and answers.
    pub(super) fn hears_tcp(&mut self) -> Result<()> {
        let Some(listener) = self.listener.as_ref().filter(|_| self.is_heard) else {
            return Ok(());
        };
        ensure!(wait_readable(listener, Instant::now() + SOON)?, "TCP");
        let (mut stream, _) = listener.accept()?;
        ensure!(wait_readable(&stream, Instant::now() + SOON)?, "TCP data");
        ensure!(stream.read(&mut [0; 64])? > 0, "an end");
        stream.write_all(b"world")?;
        self.accepted = Some(stream);
        Ok(())
    }

    fn whole(&self, bytes: &[u8]) -> Frame {
        let to = if self.is_for_many {
            GROUPS[usize::from(self.ours.is_ipv6())]
        } else {
            self.ours
        };
        let frame = self.ip(self.theirs(), to);
        frame.udp(Udp::new(self.from, self.port)).payload(bytes)
    }

    pub(super) fn datagram(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(&self.whole(bytes).build())
    }

    /// A datagram in two fragments.
    pub(super) fn in_fragments(&mut self) -> Result<()> {
        for piece in fragments(&self.whole(&[7; 92]).build(), 7, &[0..40, 40..100])? {
            self.send(&piece)?;
        }
        Ok(())
    }

    /// The service hears a datagram, if it may, and answers.
    pub(super) fn hears_udp(&mut self) -> Result<()> {
        let Some(service) = self.service.as_ref().filter(|_| self.is_heard) else {
            return Ok(());
        };
        let heard = receive_datagram(service, Instant::now() + SOON)?;
        let (_, from) = heard.context("a datagram")?;
        service.send_to(b"answer", from)?;
        Ok(())
    }

    /// The service says something that nobody asked.
    pub(super) fn service_speaks(&mut self) {
        let to = SocketAddr::new(self.theirs(), self.from);
        if let Some(service) = &self.service {
            // Where what leaves is judged, too, it may not.
            let _ = service.send_to(b"news", to);
        }
    }

    /// Nobody was there for an answer of the service's.
    pub(super) fn error_about_answer(&mut self) -> Result<()> {
        let about = self.ip(self.ours, self.theirs());
        let about = about
            .udp(Udp::new(self.port, self.from))
            .payload(*b"answer");
        let about = about.build().split_off(14);
        let (kind, code) = if self.ours.is_ipv4() { (3, 3) } else { (1, 4) };
        let link = &self.guarded.link;
        let frame = Frame::between(&link.right, &link.left);
        let (from, to) = (self.theirs(), self.ours);
        self.send(&icmp_error(frame, from, to, kind, code, [0; 4], &about).build())
    }

    /// Other protocols, and ICMP that no host needs: nine, three of each.
    pub(super) fn without_ports(&mut self) -> Result<()> {
        for _ in 0..3 {
            let frame = || self.ip(self.theirs(), self.ours);
            for protocol in [number::GRE, 99] {
                self.send(&frame().protocol(protocol).payload([0; 40]).build())?;
            }
            let frame = match self.ours {
                IpAddr::V4(_) => frame().icmpv4(Icmp::new(13, 0)),
                IpAddr::V6(_) => frame().icmpv6(Icmp::new(200, 0)),
            };
            self.send(&frame.payload([0; 16]).build())?;
        }
        Ok(())
    }

    pub(super) fn host_asks(&mut self) -> Result<()> {
        let to = SocketAddr::new(self.theirs(), ASKED);
        self.own.send_to(b"question", to)?;
        Ok(())
    }

    /// To what the host asked from, from this port, of the address that was asked or another.
    pub(super) fn answers(&mut self, from: u16, other: usize) -> Result<()> {
        let theirs = *addresses(self.ours).get(other).context("an address")?;
        let frame = self.ip(theirs, self.ours);
        let ports = Udp::new(from, self.own.local_addr()?.port());
        self.send(&frame.udp(ports).payload(*b"answer").build())
    }

    /// The host opens a connection to the far end, which accepts it.
    pub(super) fn host_connects(&mut self) -> Result<()> {
        let to = SocketAddr::new(self.theirs(), ASKED);
        let connecting: TcpStream = self
            .guarded
            .link
            .left
            .host
            .run(|| Ok(begin_connecting(to)?.into()))?;
        let own = connecting.local_addr()?;
        (self.from, self.port) = (ASKED, own.port());
        let number = self.hears_segment(self.port, ASKED, Tcp::SYN)?;
        self.acknowledged = number.wrapping_add(1);
        self.connecting = Some(connecting);
        self.segment(Tcp::SYN | Tcp::ACK, b"", 0)
    }

    /// What arrived by now, though nothing should have.
    pub(super) fn heard_nothing(&self) -> Result<()> {
        if let Some(service) = &self.service {
            let heard = receive_datagram(service, Instant::now())?;
            ensure!(heard.is_none(), "{heard:?} arrived");
        }
        Ok(())
    }
}
