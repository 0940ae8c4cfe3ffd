//! What is sent to the guarded host, and whether it arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use portguard_harness::frames::{Extension, Frame, Ipv4, Ipv6, Tcp, fragments, number};
use portguard_harness::traffic::{PacketSocket, contains, exchange_tcp, ping, wait_readable};

use super::stage::Stage;

const NODE_2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 12));
const NODE_2_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x12));
const ADMIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 50));
const LAPTOP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 66));
/// The cache that no document knows.
const CACHE: u16 = 6379;

/// How long an answer may take on a private link.
const ANSWER: Duration = Duration::from_millis(500);

/// One thing that is sent.
pub(super) struct Act {
    /// For people.
    pub(super) what: &'static str,
    /// Who sends it.
    pub(super) who: &'static str,
    /// What becomes of it when the guard enforces.
    pub(super) enforced: Outcome,
    kind: Kind,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Arrived,
    Dropped,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A conversation over TCP.
    Tcp(IpAddr, u16),
    /// A datagram of this size, and the same back.
    Udp(IpAddr, u16, usize),
    Ping,
    /// A frame that no ordinary program would send.
    Frame(Shape),
}

/// Disguises of a connection to the cache.
#[derive(Clone, Copy)]
enum Shape {
    Vlan,
    DoubleVlan,
    Options,
    Extension,
    TinyFragment,
}

/// Everything that is sent, in the order it is shown.
pub(super) fn acts() -> Vec<Act> {
    use Kind::{Frame, Ping, Tcp, Udp};
    use Outcome::{Arrived, Dropped};
    let act = |what, who, enforced, kind| Act {
        what,
        who,
        enforced,
        kind,
    };
    vec![
        act(
            "web application, tcp/443",
            "node-2",
            Arrived,
            Tcp(NODE_2, 443),
        ),
        act("Zookeeper, tcp/2181", "node-2", Arrived, Tcp(NODE_2, 2181)),
        act(
            "PostgreSQL over IPv6, tcp/5432",
            "node-2",
            Arrived,
            Tcp(NODE_2_V6, 5432),
        ),
        act("SSH, tcp/22", "administrator", Arrived, Tcp(ADMIN, 22)),
        act("ping", "node-2", Arrived, Ping),
        act("PostgreSQL, tcp/5432", "laptop", Dropped, Tcp(LAPTOP, 5432)),
        act("SSH, tcp/22", "laptop", Dropped, Tcp(LAPTOP, 22)),
        act("cache, tcp/6379", "node-2", Dropped, Tcp(NODE_2, CACHE)),
        act("cache over IPv6", "node-2", Dropped, Tcp(NODE_2_V6, CACHE)),
        act("SNMP, udp/161", "laptop", Dropped, Udp(LAPTOP, 161, 64)),
        act(
            "SNMP in fragments",
            "laptop",
            Dropped,
            Udp(LAPTOP, 161, 4000),
        ),
        act(
            "cache behind a VLAN tag",
            "laptop",
            Dropped,
            Frame(Shape::Vlan),
        ),
        act(
            "cache behind two VLAN tags",
            "laptop",
            Dropped,
            Frame(Shape::DoubleVlan),
        ),
        act(
            "cache behind IP options",
            "laptop",
            Dropped,
            Frame(Shape::Options),
        ),
        act(
            "cache behind an IPv6 extension",
            "node-2",
            Dropped,
            Frame(Shape::Extension),
        ),
        act(
            "cache in a fragment of 8 bytes",
            "laptop",
            Dropped,
            Frame(Shape::TinyFragment),
        ),
    ]
}

/// Sends everything at once and says what arrived, in the same order.
pub(super) fn perform(stage: &Stage, acts: &[Act]) -> Result<Vec<Outcome>> {
    thread::scope(|scope| {
        let running: Vec<_> = acts
            .iter()
            .map(|act| scope.spawn(|| one(stage, act).with_context(|| act.what)))
            .collect();
        running
            .into_iter()
            .map(|act| match act.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

fn one(stage: &Stage, act: &Act) -> Result<Outcome> {
    let arrived = match act.kind {
        Kind::Tcp(from, port) => match stage.connect(from, port)? {
            Some(mut stream) => exchange_tcp(&mut stream, b"hello", ANSWER)?,
            None => false,
        },
        Kind::Udp(from, port, size) => datagram(stage, from, port, size)?,
        Kind::Ping => {
            let node = stage.address(false);
            stage.network().host.run(|| ping(node, ANSWER))?.is_some()
        }
        Kind::Frame(shape) => frame(stage, act.what, shape)?,
    };
    Ok(if arrived {
        Outcome::Arrived
    } else {
        Outcome::Dropped
    })
}

fn datagram(stage: &Stage, from: IpAddr, port: u16, size: usize) -> Result<bool> {
    let to = SocketAddr::new(stage.address(from.is_ipv6()), port);
    stage.network().host.run(|| {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(to)?;
        let sent = vec![b'?'; size];
        socket.send(&sent)?;
        let mut back = vec![0; size + 1];
        let answered = wait_readable(&socket, Instant::now() + ANSWER)?;
        Ok(answered && socket.recv(&mut back).is_ok_and(|length| length == size))
    })
}

/// Whether a frame gets past the guard, to the stack of the host.
fn frame(stage: &Stage, marker: &str, shape: Shape) -> Result<bool> {
    let (node, network) = (stage.node(), stage.network());
    let mut ears = node.host.run(|| PacketSocket::open(&node.name))?;
    let frames = disguise(stage, marker, shape)?;
    network.host.run(|| {
        let mouth = PacketSocket::open(&network.name)?;
        frames.iter().try_for_each(|frame| mouth.send(frame))
    })?;
    let found = ears.find(Instant::now() + ANSWER, |frame| {
        contains(frame, marker.as_bytes())
    })?;
    Ok(found.is_some())
}

fn disguise(stage: &Stage, marker: &str, shape: Shape) -> Result<Vec<Vec<u8>>> {
    let plain = Frame::between(stage.network(), stage.node());
    let v4 = Ipv4::new(Ipv4Addr::new(10, 20, 0, 66), stage.node().v4());
    let v6 = Ipv6::new(stage.network().v6(), stage.node().v6());
    let frame = match shape {
        Shape::Vlan => plain.tag(number::VLAN, 7).ipv4(v4),
        Shape::DoubleVlan => plain.tag(number::QINQ, 7).tag(number::VLAN, 8).ipv4(v4),
        Shape::Options => plain.ipv4(v4.options([1, 1, 1, 0])),
        Shape::Extension => plain.ipv6(v6).extension(Extension::destination(1)),
        Shape::TinyFragment => plain.ipv4(v4),
    };
    let bytes = frame
        .tcp(Tcp::syn(40_000, CACHE))
        .payload(marker.as_bytes())
        .build();
    if !matches!(shape, Shape::TinyFragment) {
        return Ok(vec![bytes]);
    }
    // The ports come first, and the flags only in the second piece, which begins 8 bytes into the header (RFC 1858).
    let rest = 20 + marker.len();
    fragments(&bytes, 7, &[0..8, 8..rest])
}
