//! The three hosts, their listeners, and counting what arrives.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portguard_harness::frames::number;
use portguard_harness::net::{End, Interface, Lab, Link, unique_name};
use portguard_harness::traffic::{Listeners, PacketSocket, receive_datagram, udp_socket};

use super::aim::{Aim, CLOSED, OPEN};
use crate::guard::Guarded;
use crate::living::town::Site;

/// How many ports are tried on each host.
pub(super) const PORTS: usize = 2;

/// Large frames are among the shapes.
const MTU: u32 = 9000;

/// The longest that a frame may take from one end of a link to a socket at the other, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the host with the number has before its link; the last is the one that enforces.
const MODES: [Option<&str>; 3] = [None, Some("--audit"), Some("--enforce")];

/// VLAN ids: one tag, and two.
pub(super) const VLAN: u16 = 5;
pub(super) const OUTER: u16 = 6;
pub(super) const INNER: u16 = 7;
pub(super) const INNERMOST: u16 = 8;

/// Which of the packets of an offer arrived where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Arrived {
    /// At the documented port.
    pub(super) open: usize,
    /// At the undocumented one.
    pub(super) closed: usize,
}

/// One host and the peer that sends to it.
pub(super) struct Target {
    pub(super) guarded: Guarded,
    /// Documented and undocumented port.
    udp: [UdpSocket; 2],
    /// Where the steps of handshakes come back.
    wire: PacketSocket,
    _listening: Listeners,
    /// Whether this kernel has devices for VLANs.
    pub(super) vlans: bool,
}

pub(super) struct Hosts {
    pub(super) all: Vec<Target>,
    serial: u32,
}

impl Hosts {
    pub(super) fn new() -> Result<Self> {
        let all = MODES.into_iter().map(Target::new);
        Ok(Self {
            all: all.collect::<Result<_>>()?,
            serial: 0,
        })
    }

    /// The aim at one of the hosts, unlike any before.
    pub(super) fn aim(&mut self, index: usize, base: &Aim) -> Aim {
        let mut aim = base.clone();
        self.serial += 1;
        aim.id = self.serial;
        // Below the range from which the kernel takes ports of its own.
        aim.source_port = 10_000 + u16::try_from(self.serial % 20_000).unwrap_or(0);
        let link = &self.all[index].guarded.link;
        (aim.to_mac, aim.from_mac) = (link.left.mac, link.right.mac);
        aim.v4_ends = (link.right.v4(), link.left.v4());
        aim.v6_ends = (link.right.v6(), link.left.v6());
        aim
    }

    /// Sends frames to one of the hosts, and sees what of the aim's arrives.
    pub(super) fn offer(&mut self, index: usize, aim: &Aim, frames: &[Vec<u8>]) -> Result<Arrived> {
        self.all[index].send(frames)?;
        let mut last = Aim::new(false, aim.tcp).at(true);
        last = self.aim(index, &last);
        let target = &mut self.all[index];
        target.send(&[last.whole()])?;
        if aim.tcp {
            target.handshakes(aim, &last)
        } else {
            let [open, closed] = target.datagrams(&last)?;
            let count = |all: &[Vec<u8>]| all.iter().filter(|data| is_of(data, aim)).count();
            Ok(Arrived {
                open: count(&open),
                closed: count(&closed),
            })
        }
    }
}

/// Whether a datagram is one of the aim's. One that came out damaged is, too.
fn is_of(data: &[u8], aim: &Aim) -> bool {
    data.is_empty() || data.len() < 6 || data.starts_with(&aim.marker()) || !data.starts_with(b"pg")
}

impl Target {
    fn new(mode: Option<&str>) -> Result<Self> {
        let lab = Lab::new()?;
        let end = |name: &str, last: u8| {
            End::new(&unique_name(name))
                .mtu(MTU)
                .address(&format!("10.77.0.{last}/24"))
                .address(&format!("fd77::{last}/64"))
        };
        let (host, peer) = (lab.host("host")?, lab.host("peer")?);
        let link = lab.connect(&host, &end("byh", 1), &peer, &end("byp", 2))?;
        // A host that believes what it should not: the guard is all that stands between.
        for (key, value) in [
            ("ipv4/conf/all/accept_source_route", "1"),
            ("ipv4/conf/default/accept_source_route", "1"),
            ("ipv6/conf/all/accept_source_route", "1"),
            ("ipv6/max_dst_opts_number", "1000"),
            ("ipv6/max_hbh_opts_number", "1000"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/tcp_syncookies", "0"),
            ("ipv4/tcp_max_syn_backlog", "65536"),
            ("core/somaxconn", "65535"),
        ] {
            host.sysctl(&format!("net/{key}"), value)?;
        }
        let conf = |family: &str, key: &str| format!("net/{family}/conf/{}/{key}", link.left.name);
        host.sysctl(&conf("ipv4", "accept_source_route"), "1")?;
        host.sysctl(&conf("ipv6", "accept_source_route"), "1")?;
        let vlans = add_vlans(&link)?;
        for (from, to) in [(&link.left, &link.right), (&link.right, &link.left)] {
            for address in to.both() {
                from.add_neighbour(address, to.mac)?;
            }
        }
        let udp = [OPEN[1], CLOSED].map(|port| {
            let any = SocketAddr::new(IpAddr::from([0_u16; 8]), port);
            host.run(|| udp_socket(any))
        });
        let [open, closed] = udp;
        let udp = [open?, closed?];
        let any = IpAddr::from([0_u16; 8]);
        let listening = Listeners::start_dual(&host, any, [OPEN[0], CLOSED])?;
        let wire = peer.run(|| PacketSocket::open(&link.right.name))?;
        // Nobody resets the handshakes for us: they wait in the queue of the listener.
        let target = Self {
            guarded: Guarded { link },
            udp,
            wire,
            _listening: listening,
            vlans,
        };
        if let Some(mode) = mode {
            Site::new("audit")?.load(&target.guarded, &[mode])?;
        }
        Ok(target)
    }

    pub(super) fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        for frame in frames {
            self.wire.send(frame)?;
        }
        Ok(())
    }

    /// All datagrams that came before the last.
    pub(super) fn datagrams(&self, last: &Aim) -> Result<[Vec<Vec<u8>>; 2]> {
        let deadline = Instant::now() + PATIENCE;
        let mut open = Vec::new();
        loop {
            let (data, _) = receive_datagram(&self.udp[0], deadline)?
                .context("the last frame did not arrive")?;
            if data.starts_with(&last.marker()) {
                break;
            }
            open.push(data);
        }
        let mut closed = Vec::new();
        while let Some((data, _)) = receive_datagram(&self.udp[1], Instant::now())? {
            closed.push(data);
        }
        Ok([open, closed])
    }

    /// Second steps of handshakes that came back before that of the last.
    fn handshakes(&mut self, aim: &Aim, last: &Aim) -> Result<Arrived> {
        let mut arrived = Arrived::default();
        let deadline = Instant::now() + PATIENCE;
        let found = self.wire.find(deadline, |frame| {
            let Some((from, to)) = step(frame) else {
                return false;
            };
            if to == aim.source_port {
                // A step that is repeated later is that of another aim by then.
                arrived.open |= usize::from(from == OPEN[0]);
                arrived.closed |= usize::from(from == CLOSED);
            }
            (from, to) == (OPEN[0], last.source_port)
        })?;
        ensure!(found.is_some(), "the last handshake was not answered");
        Ok(arrived)
    }
}

/// Devices for one tag, for two and for three, at both ends; `false` if this kernel has none.
fn add_vlans(link: &Link) -> Result<bool> {
    for interface in [&link.left, &link.right] {
        let last = if interface.name == link.left.name {
            1
        } else {
            2
        };
        let add = |on: &Interface, kind: u16, id: u16| -> Result<Interface> {
            let nets = [
                format!("10.77.{id}.{last}/24").parse()?,
                format!("fd77:0:0:{id}::{last}/64").parse()?,
            ];
            on.add_vlan(&unique_name("vl"), kind, id, &nets)
        };
        match add(interface, number::VLAN, VLAN) {
            Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::EOPNOTSUPP) => {
                return Ok(false);
            }
            made => made?,
        };
        let outer = add(interface, number::QINQ, OUTER)?;
        let inner = add(&outer, number::VLAN, INNER)?;
        add(&inner, number::VLAN, INNERMOST)?;
    }
    Ok(true)
}

/// Source and destination port of the second step of a handshake.
fn step(frame: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = 14;
    // The outermost tag is taken off before we see it.
    while matches!(word(at - 2)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    let (protocol, transport) = match word(at - 2)? {
        0x0800 => (
            *frame.get(at + 9)?,
            at + usize::from(frame.get(at)? & 15) * 4,
        ),
        // Answers carry no extension headers.
        0x86dd => (*frame.get(at + 6)?, at + 40),
        _ => return None,
    };
    let is_step = protocol == 6 && frame.get(transport + 13)? & 0x12 == 0x12;
    is_step.then_some((word(transport)?, word(transport + 2)?))
}
