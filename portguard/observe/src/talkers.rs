//! Top talkers: the heaviest causes of violations, as the kernel keeps them ([`portguard_common::talkers`]).

mod bounds;
mod crowd;
mod mark;
mod top;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray};
use portguard_common::abi;
use portguard_common::packet::{Malformed, protocol};
use portguard_common::reason::{Direction, Reason};
use portguard_common::sampler::RATE;
use portguard_common::talkers as kernel;
use portguard_common::talkers::SETS;
use portguard_kernel::error::Context as _;

pub(crate) use crowd::{Crowd, Deed, network, whom};
pub use mark::Mark;
pub(crate) use top::name;
pub use top::{TopTalker, TopTalkers};

/// The heaviest causes of violations since the first load, and what is not known of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Talkers {
    /// Heaviest first.
    pub heaviest: Vec<Talker>,
    /// Whoever caused more packets than this is among them.
    pub bound: u64,
    /// Packets that were put down to anybody, whether still known or displaced: who takes a place inherits its count.
    pub attributed: u64,
}

/// One cause of violations, summed over the CPUs.
///
/// Of the first 64 violations a second, CPU and 4,096 ports all are put down to somebody, of those beyond one in 256, for
/// as many: `packets` is then an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talker {
    /// Which way.
    pub direction: Direction,
    /// Why it is a violation.
    pub reason: Reason,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, 0 for a client's; ICMP type; EtherType of what is not IP; number of the cause of what is malformed.
    pub port: u16,
    /// Whether it goes to the ports of clients, which are not told apart.
    pub to_client: bool,
    /// The port that such packets come from, where it is a service's; else 0.
    pub service: u16,
    /// The other end: of a crowd, the address that was seen last.
    pub peer: IpAddr,
    /// Whether it stands for all of its IPv6 /64, from which too many addresses came to tell them apart.
    pub is_crowd: bool,
    /// Packets.
    pub packets: u64,
    /// By how many of them that may be too high.
    pub error: u64,
    /// How many of them were dropped, not only counted.
    pub dropped: u64,
    /// How many of them were looked at, at least: each of these it did send.
    pub looks: u64,
    /// Nanoseconds since the Unix epoch.
    pub first: u64,
    /// Nanoseconds since the Unix epoch.
    pub last: u64,
}

impl Talkers {
    /// Reads the map pinned in `shared`; `booted` is [`crate::events::stream::booted`].
    ///
    /// # Errors
    /// If the map is missing or cannot be read.
    pub fn read(shared: &Path, booted: u64) -> portguard_kernel::Result<Self> {
        let path = shared.join("TALKERS");
        let map = MapData::from_pin(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let map: PerCpuArray<_, abi::TalkerSet> = Map::PerCpuArray(map).try_into()?;
        let mut sets = Vec::new();
        for index in 0..SETS {
            sets.push(map.get(&index, 0)?.iter().copied().collect());
        }
        Ok(Self::sum(&sets, booted))
    }

    /// Sums sets, each of them once a CPU.
    fn sum(sets: &[Vec<abi::TalkerSet>], booted: u64) -> Self {
        let mut causes: BTreeMap<(u64, IpAddr), Talker> = BTreeMap::new();
        let mut bounds: Vec<u64> = Vec::new();
        for shares in sets {
            bounds.resize(shares.len().max(bounds.len()), 0);
            for (share, bound) in shares.iter().zip(&mut bounds) {
                // An empty place has no packets: where there is one, nobody was pushed out.
                let lightest = share.places.iter().map(|place| place.packets).min();
                *bound = (*bound).max(lightest.unwrap_or(0));
                for place in share.places.iter().filter(|place| !place.is_empty()) {
                    let Some(talker) = Talker::of(place, booted) else {
                        continue;
                    };
                    causes
                        .entry((place.what, talker.peer))
                        .and_modify(|known| known.add(&talker))
                        .or_insert(talker);
                }
            }
        }
        let mut heaviest: Vec<Talker> = causes.into_values().collect();
        heaviest.sort_by_key(|talker| std::cmp::Reverse(talker.packets));
        Self {
            attributed: heaviest.iter().map(|talker| talker.packets).sum(),
            heaviest,
            bound: bounds.iter().sum(),
        }
    }
}

impl Talker {
    fn of(place: &kernel::Talker, booted: u64) -> Option<Self> {
        Some(Self {
            direction: place.direction(),
            reason: Reason::from_number(place.reason())?,
            protocol: place.protocol(),
            port: place.port(),
            to_client: place.is_to_client(),
            service: place.service(),
            peer: place.addr().into(),
            is_crowd: false,
            packets: place.packets,
            error: place.error.min(place.packets),
            dropped: place.dropped,
            looks: Self::looks(place.packets - place.error.min(place.packets)),
            first: booted.saturating_add(place.first),
            last: booted.saturating_add(place.last),
        })
    }

    /// How many packets were looked at where so many were put down to somebody: each stands for fewer than twice
    /// [`RATE`].
    pub(crate) fn looks(packets: u64) -> u64 {
        packets.div_ceil(2 * u64::from(RATE) - 1)
    }

    /// Transport, port, and what was malformed, in words.
    fn what(&self) -> (&'static str, Option<u16>, Option<&'static str>) {
        let port = Some(self.port).filter(|_| !self.to_client);
        match (self.reason, self.protocol) {
            (Reason::Malformed, _) => {
                let mut all = Malformed::ALL.into_iter();
                let cause = all.find(|cause| *cause as u16 == self.port);
                ("malformed", None, cause.map(Malformed::name))
            }
            (Reason::NonIp | Reason::StrictEthertype, _) => ("ethertype", port, None),
            (Reason::UndocumentedProtocol | Reason::StrictFragment, number) => {
                ("ip", Some(number.into()), None)
            }
            (_, protocol::TCP) => ("tcp", port, None),
            (_, protocol::UDP) => ("udp", port, None),
            (_, protocol::SCTP) => ("sctp", port, None),
            (_, protocol::ICMP | protocol::ICMPV6) => ("icmp", port, None),
            (_, number) => ("ip", Some(number.into()), None),
        }
    }

    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.error += other.error;
        self.dropped += other.dropped;
        self.looks += other.looks;
        self.first = self.first.min(other.first);
        if other.last > self.last {
            self.last = other.last;
            self.peer = other.peer;
        }
    }
}

#[cfg(test)]
impl Talker {
    /// One that sent to a TCP port that no row opens; for tests to change.
    pub(crate) fn example(port: u16, peer: &str) -> Self {
        Self {
            direction: Direction::Ingress,
            reason: Reason::UndocumentedPort,
            protocol: protocol::TCP,
            port,
            to_client: false,
            service: 0,
            peer: peer.parse().unwrap(),
            is_crowd: false,
            packets: 0,
            error: 0,
            dropped: 0,
            looks: 0,
            first: 0,
            last: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use portguard_common::addr::Addr;
    use portguard_common::talkers::TalkerKey;

    use super::*;

    #[test]
    fn shares_of_cpus_are_one_cause() {
        let peer = |low| Addr::v6(0x2001_0db8_0000_0001, low);
        let who = |low| TalkerKey::new(peer(low), Direction::Ingress, 16, 6, 23);
        let mut first = abi::TalkerSet::default();
        first.places[0] = first.places[0].add(&who(7), 5, true, 100);
        let mut second = abi::TalkerSet::default();
        second.places[3] = second.places[3].add(&who(7), 2, false, 50);
        let other = TalkerKey::new(Addr::v4(1), Direction::Egress, 17, 17, 53);
        second.places[4] = second.places[4].add(&other, 1, false, 60);

        let talkers = Talkers::sum(&[vec![first, second]], 1000);
        assert_eq!(talkers.bound, 0);
        let [heavy, light] = talkers.heaviest[..] else {
            panic!("{talkers:?}")
        };
        assert_eq!((heavy.packets, heavy.dropped, heavy.error), (7, 5, 0));
        assert_eq!((heavy.first, heavy.last), (1050, 1100));
        assert_eq!(heavy.peer, IpAddr::from(peer(7)));
        assert_eq!((heavy.protocol, heavy.port), (6, 23));
        assert_eq!(light.direction, Direction::Egress);
        assert_eq!(light.reason, Reason::UndocumentedPeer);

        for place in &mut second.places {
            *place = place.add(&other, 10, false, 70);
        }
        assert_eq!(Talkers::sum(&[vec![first, second]], 0).bound, 10);
    }
}
