//! Top talkers: the peers and ports with most violations, in memory that no flood makes grow.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, 2005) in sets of eight: what has no place takes that of the lightest in its
//! set, and inherits its count as its error. So a count is never below what was added to it, and above by no more than its
//! error, which is at most an eighth of all that was added to its set; whoever has more than that is in the table.

use crate::engine::conntrack;
use crate::engine::reason::Direction;
use crate::engine::verdict::Verdict;
use crate::wire::addr::Addr;
use crate::wire::packet::{Shape, Subject, protocol, tcp};

/// Places in a set.
pub const WAYS: usize = 8;

/// Sets a CPU has: a power of two.
pub const SETS: u32 = 64;

/// From here on systems pick the ports of clients: such a port names nothing, and changes with every connection.
pub const CLIENT_PORTS: u16 = 32_768;

/// Up to here Linux picks the ports of its own clients unless its settings say otherwise.
pub const CLIENT_PORTS_HERE: u16 = 60_999;

/// What violations are put down to: a peer, and what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkerKey {
    /// The other end: the source of what arrives, the destination of what is sent. As in [`Talker::peer`].
    peer: [u64; 2],
    /// As in [`Talker::what`].
    what: u64,
}

/// One of the heaviest: plain words, as in the kernel's map. One cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Talker {
    /// The peer's address as in [`Addr`].
    pub peer: [u64; 2],
    /// Family, direction, reason, protocol, port and service: see [`Talker::direction`] and the others. Zero = an empty place.
    pub what: u64,
    /// Packets: at least the true number.
    pub packets: u64,
    /// By how much that may be too high.
    pub error: u64,
    /// How many of them were dropped, not only counted.
    pub dropped: u64,
    /// Boot-time clock of the first, nanoseconds.
    pub first: u64,
    /// Of the last.
    pub last: u64,
}

/// Places that the same hash leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct TalkerSet {
    /// The places.
    pub places: [Talker; WAYS],
}

const TAKEN: u64 = 1 << 63;
const V6: u64 = 1 << 62;
/// The destination is a client's port, which stands for all of them.
const CLIENT: u64 = 1 << 49;
/// Where the port is that packets to a client's port come from, if it is a service's.
const SERVICE: u32 = 33;

/// Whether it answers an attempt to open a connection.
#[inline(always)]
fn is_answer<S: Subject>(packet: &S) -> bool {
    packet.protocol() == protocol::TCP
        && packet.tcp_flags() & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK
}

/// What takes the place of the destination port: itself, or for a client's port the port of the service that answers.
#[inline(always)]
fn port_or_service<S: Subject>(packet: &S, direction: Direction) -> u64 {
    let (to, from) = (packet.destination_port(), packet.source_port());
    let own = u64::from(to);
    let last = match direction {
        Direction::Ingress => CLIENT_PORTS_HERE,
        Direction::Egress => u16::MAX,
    };
    let is_low = match direction {
        Direction::Ingress => false,
        // Some systems give clients any port.
        Direction::Egress => to >= 1024 && is_answer(packet),
    };
    if (to < CLIENT_PORTS && !is_low) || to > last {
        return own;
    }
    // Who opens a connection means the port; only active FTP and its like open one to a client, from a port of their own.
    let is_service = from < CLIENT_PORTS;
    let is_called = match direction {
        Direction::Ingress => from < 1024,
        Direction::Egress => false,
    };
    if packet.is_opening() && !is_called {
        return own;
    }
    let is_tcp = packet.protocol() == protocol::TCP;
    if is_tcp && packet.tcp_flags() & tcp::RST != 0 {
        // Refusals come from every port that somebody tries.
        return CLIENT;
    }
    if is_service || is_answer(packet) {
        return CLIENT | u64::from(from) << SERVICE;
    }
    if is_tcp { CLIENT } else { own }
}

impl TalkerKey {
    /// The cause of a violation.
    #[inline(always)]
    pub fn of<S: Subject>(packet: &S, verdict: &Verdict, direction: Direction) -> Self {
        let peer = match direction {
            Direction::Ingress => packet.source(),
            Direction::Egress => packet.destination(),
        };
        let port = match packet.shape() {
            Shape::Ports => port_or_service(packet, direction),
            Shape::Icmp => packet.icmp_type().into(),
            Shape::NonIp => packet.ethertype().into(),
            Shape::Malformed(cause) => cause as u64,
            Shape::Arp | Shape::Fragment | Shape::Protocol => 0,
        };
        let mut key = Self::new(peer, direction, verdict.reason as u8, packet.protocol(), 0);
        key.what |= port;
        key
    }

    /// The same for a client's port, and the port of the service that the packets come from; 0 = none that says anything.
    #[must_use]
    pub const fn from_service(mut self, service: u16) -> Self {
        self.what = self.what >> 16 << 16 | CLIENT | (service as u64) << SERVICE;
        self
    }

    /// From its parts; `port` is what [`Talker::port`] says.
    #[inline(always)]
    pub const fn new(
        peer: Addr,
        direction: Direction,
        reason: u8,
        protocol: u8,
        port: u16,
    ) -> Self {
        let family = if peer.v6 { V6 } else { 0 };
        let what = TAKEN
            | family
            | (direction as u64) << 32
            | (reason as u64) << 24
            | (protocol as u64) << 16
            | port as u64;
        Self {
            peer: [peer.high, peer.low],
            what,
        }
    }

    /// Which set it belongs to, for those who have the secret.
    #[inline(always)]
    pub fn set(&self, secret: [u64; 2]) -> u32 {
        let [first, second] = secret;
        let [high, low] = self.peer;
        let address = conntrack::mix(high ^ first, low);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits are what is asked for"
        )]
        let hash = conntrack::mix(address, self.what ^ second) as u32;
        hash & (SETS - 1)
    }

    /// The same, of which a verifier knows nothing any more: see [`TalkerSet::place`].
    #[inline(always)]
    #[must_use]
    pub fn barrier_var(self, barrier_var: impl Fn(u64) -> u64) -> Self {
        let Self {
            peer: [high, low],
            what,
        } = self;
        Self {
            peer: [barrier_var(high), barrier_var(low)],
            what: barrier_var(what),
        }
    }

    /// Whether a place is its own.
    #[inline(always)]
    pub const fn is_at(&self, place: &Talker) -> bool {
        let ([high, low], [place_high, place_low]) = (self.peer, place.peer);
        place.what == self.what && low == place_low && high == place_high
    }
}

impl TalkerSet {
    /// The place of `key`: its own, else an empty one, else the lightest.
    ///
    /// `barrier_var` gives back a number of which a verifier knows nothing any more: where programs call each other, verifiers
    /// before 6.4 go on once for each value that a number may have.
    #[inline(always)]
    pub fn place(&self, key: &TalkerKey, barrier_var: impl Fn(u64) -> u64) -> u64 {
        let mut lightest = 0;
        let mut least = u64::MAX;
        for (index, place) in (0..).zip(&self.places) {
            if key.is_at(place) {
                return barrier_var(index);
            }
            let packets = barrier_var(place.packets);
            if packets < least {
                least = packets;
                lightest = index;
            }
            (lightest, least) = (barrier_var(lightest), barrier_var(least));
        }
        lightest
    }
}

impl Talker {
    /// What this place becomes when `key` adds `packets` at a `time`.
    #[inline(always)]
    #[must_use]
    pub const fn add(&self, key: &TalkerKey, packets: u64, is_drop: bool, time: u64) -> Self {
        let own = key.is_at(self);
        let dropped = if is_drop { packets } else { 0 };
        Self {
            peer: key.peer,
            what: key.what,
            packets: self.packets + packets,
            error: if own { self.error } else { self.packets },
            dropped: if own { self.dropped + dropped } else { dropped },
            first: if own { self.first } else { time },
            last: time,
        }
    }

    /// Whether nobody is here.
    pub const fn is_empty(&self) -> bool {
        self.what == 0
    }

    /// The peer.
    pub const fn addr(&self) -> Addr {
        let [high, low] = self.peer;
        Addr {
            v6: self.what & V6 != 0,
            high,
            low,
        }
    }

    /// Which way.
    pub const fn direction(&self) -> Direction {
        if self.what >> 32 & 1 == 0 {
            Direction::Ingress
        } else {
            Direction::Egress
        }
    }

    /// Number of the [`crate::engine::reason::Reason`].
    #[expect(clippy::cast_possible_truncation, reason = "takes an octet")]
    pub const fn reason(&self) -> u8 {
        (self.what >> 24) as u8
    }

    /// IP protocol.
    #[expect(clippy::cast_possible_truncation, reason = "takes an octet")]
    pub const fn protocol(&self) -> u8 {
        (self.what >> 16) as u8
    }

    /// Destination port, 0 for a client's; ICMP type; EtherType of what is not IP; number of the [`crate::wire::packet::Malformed`].
    #[expect(clippy::cast_possible_truncation, reason = "takes two octets")]
    pub const fn port(&self) -> u16 {
        self.what as u16
    }

    /// Whether the packets go to ports of clients, of which there are too many to tell apart.
    pub const fn is_to_client(&self) -> bool {
        self.what & CLIENT != 0
    }

    /// The port that packets to clients come from, where it says anything: else 0.
    #[expect(clippy::cast_possible_truncation, reason = "takes two octets")]
    pub const fn service(&self) -> u16 {
        (self.what >> SERVICE) as u16
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec;

    use super::*;

    extern crate std;

    #[test]
    fn a_flood_of_sources_neither_grows_it_nor_hides_the_heavy() {
        let mut table = vec![TalkerSet::default(); SETS as usize];
        let mut added = vec![0_u64; SETS as usize];
        let mut truth: HashMap<(Addr, u64), u64> = HashMap::new();
        let mut random = fastrand::Rng::with_seed(1);
        for step in 0..400_000_u64 {
            // One in 64 of one peer, one in 128 of another, the rest spoofed at random.
            let (peer, port) = match step % 128 {
                0 | 64 => (Addr::v4(1), 22),
                32 => (Addr::v6(2, 3), 23),
                _ => (Addr::v4(random.u32(1 << 31..)), 80),
            };
            let cause = TalkerKey::new(peer, Direction::Ingress, 16, 6, port);
            let set = cause.set([5, 7]) as usize;
            let place = usize::try_from(table[set].place(&cause, |number| number)).unwrap();
            let talker = &mut table[set].places[place];
            *talker = talker.add(&cause, 1, true, step);
            added[set] += 1;
            *truth.entry((peer, cause.what)).or_default() += 1;
        }
        let mut found = 0;
        for (set, bound) in table.iter().zip(added) {
            for talker in set.places {
                let addr = talker.addr();
                let true_count = truth[&(addr, talker.what)];
                assert!(talker.packets >= true_count);
                assert!(talker.packets - talker.error <= true_count);
                assert!(talker.error <= bound / WAYS as u64);
                assert!(talker.first <= talker.last);
                if matches!((addr.v6, addr.high, addr.low), (false, 0, 1) | (true, 2, 3)) {
                    found += 1;
                    assert!(talker.error < true_count / 2, "{talker:?}");
                }
            }
        }
        assert_eq!(found, 2);
    }

    #[test]
    fn a_talker_says_what_it_was() {
        let key = TalkerKey::new(Addr::v6(1, 2), Direction::Egress, 17, 132, 65_535);
        let talker = Talker::default()
            .add(&key, 3, false, 9)
            .add(&key, 4, true, 11);
        assert_eq!(
            (
                talker.direction(),
                talker.reason(),
                talker.protocol(),
                talker.port()
            ),
            (Direction::Egress, 17, 132, 65_535)
        );
        assert_eq!((talker.addr(), talker.is_empty()), (Addr::v6(1, 2), false));
        assert_eq!((talker.packets, talker.dropped, talker.error), (7, 4, 0));
        assert_eq!((talker.first, talker.last), (9, 11));
        assert!(Talker::default().is_empty());
        assert!(!talker.is_to_client() && talker.service() == 0);
        let answers = Talker::default().add(&key.from_service(9100), 1, false, 9);
        assert!(answers.is_to_client() && answers.service() == 9100);
        assert_eq!((answers.port(), answers.protocol()), (0, 132));
        assert!(!key.is_at(&answers));
    }

    #[test]
    fn a_client_port_gives_way_to_the_service_that_explains_it() {
        use Direction::{Egress, Ingress};
        let key_of = |direction, number, flags, from, to| {
            let mut packet = crate::wire::packet::Packet::new(60);
            packet.shape = Shape::Ports;
            packet.protocol = number;
            packet.tcp_flags = flags;
            packet.source_port = from;
            packet.destination_port = to;
            let verdict = Verdict::plain(crate::engine::reason::Reason::UndocumentedPort);
            let key = TalkerKey::of(&packet, &verdict, direction);
            let talker = Talker::default().add(&key, 1, false, 1);
            (talker.port(), talker.is_to_client(), talker.service())
        };
        let (tcp, udp) = (protocol::TCP, protocol::UDP);
        let (syn, ack, rst) = (tcp::SYN, tcp::ACK, tcp::RST);
        for (direction, number, flags, from, to, wanted) in [
            // A service, whatever its client's port; a refusal.
            (Ingress, tcp, syn, 50_000, 9100, (9100, false, 0)),
            (Egress, tcp, syn | ack, 9100, 50_000, (0, true, 9100)),
            (Egress, tcp, ack, 9100, 61_500, (0, true, 9100)),
            (Egress, tcp, syn | ack, 45_000, 50_000, (0, true, 45_000)),
            (Egress, tcp, rst | ack, 23, 50_000, (0, true, 0)),
            (Egress, udp, 0, 161, 50_000, (0, true, 161)),
            (Egress, tcp, syn | ack, 9100, 2_000, (0, true, 9100)),
            // The host's own clients.
            (Egress, tcp, syn, 50_000, 61_000, (61_000, false, 0)),
            (Egress, tcp, ack, 50_000, 443, (443, false, 0)),
            (Egress, udp, 0, 50_000, 53, (53, false, 0)),
            (Egress, udp, 0, 50_000, 40_000, (40_000, false, 0)),
            // What answers from elsewhere: SSDP, active FTP; TFTP, which has no port of its own at either end.
            (Ingress, udp, 0, 1900, 50_000, (0, true, 1900)),
            (Ingress, tcp, syn, 20, 50_000, (0, true, 20)),
            (Ingress, udp, 0, 40_000, 50_000, (50_000, false, 0)),
            (Ingress, tcp, ack, 40_000, 50_000, (0, true, 0)),
            // Not a port that this host gives to clients; a service on a high port.
            (Ingress, udp, 0, 1900, 61_000, (61_000, false, 0)),
            (Ingress, tcp, syn, 40_000, 50_000, (50_000, false, 0)),
        ] {
            let found = key_of(direction, number, flags, from, to);
            assert_eq!(found, wanted, "{direction:?} {number} {flags} {from} {to}");
        }
    }
}
