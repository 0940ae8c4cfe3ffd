//! Who is knocking: the heaviest causes of violations, as the kernel keeps them ([`portguard_common::knock`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Map, MapData, PerCpuArray};
use portguard_common::abi;
use portguard_common::knock as kernel;
use portguard_common::knock::SETS;
use portguard_common::reason::{Direction, Reason};

/// The heaviest causes of violations since the first load, and what is not known of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Knocks {
    /// Heaviest first.
    pub heaviest: Vec<Knock>,
    /// Whoever caused more packets than this is among them.
    pub bound: u64,
}

/// One cause of violations, summed over the CPUs.
///
/// Of the first 64 violations a second, CPU and 4,096 ports all are put down to somebody, of those beyond one in 256, for
/// as many: `packets` is then an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knock {
    /// Which way.
    pub direction: Direction,
    /// Why it is a violation.
    pub reason: Reason,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; ICMP type; EtherType of what is not IP; number of the cause of what is malformed.
    pub port: u16,
    /// The other end. An IPv6 peer stands for its /64: the last address that was seen.
    pub peer: IpAddr,
    /// Packets.
    pub packets: u64,
    /// By how many of them that may be too high.
    pub error: u64,
    /// How many of them were dropped, not only counted.
    pub dropped: u64,
    /// Nanoseconds since the Unix epoch.
    pub first: u64,
    /// Nanoseconds since the Unix epoch.
    pub last: u64,
}

impl Knocks {
    /// Reads the map pinned in `shared`; `booted` is [`crate::events::stream::booted`].
    ///
    /// # Errors
    /// If the map is missing or cannot be read.
    pub fn read(shared: &Path, booted: u64) -> anyhow::Result<Self> {
        let path = shared.join("KNOCKS");
        let map = MapData::from_pin(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let map: PerCpuArray<_, abi::Knocks> = Map::PerCpuArray(map).try_into()?;
        let mut sets = Vec::new();
        for index in 0..SETS {
            sets.push(map.get(&index, 0)?.iter().copied().collect());
        }
        Ok(Self::sum(&sets, booted))
    }

    /// Sums sets, each of them once a CPU.
    fn sum(sets: &[Vec<abi::Knocks>], booted: u64) -> Self {
        let mut causes: BTreeMap<(u64, IpAddr), Knock> = BTreeMap::new();
        let mut bounds: Vec<u64> = Vec::new();
        for shares in sets {
            bounds.resize(shares.len().max(bounds.len()), 0);
            for (share, bound) in shares.iter().zip(&mut bounds) {
                // An empty place has no packets: where there is one, nobody was pushed out.
                let lightest = share.places.iter().map(|place| place.packets).min();
                *bound = (*bound).max(lightest.unwrap_or(0));
                for place in share.places.iter().filter(|place| !place.is_empty()) {
                    let Some(knock) = Knock::of(place, booted) else {
                        continue;
                    };
                    causes
                        .entry((place.what, network(knock.peer)))
                        .and_modify(|known| known.add(&knock))
                        .or_insert(knock);
                }
            }
        }
        let mut heaviest: Vec<Knock> = causes.into_values().collect();
        heaviest.sort_by_key(|knock| std::cmp::Reverse(knock.packets));
        Self {
            heaviest,
            bound: bounds.iter().sum(),
        }
    }
}

impl Knock {
    fn of(place: &kernel::Knock, booted: u64) -> Option<Self> {
        Some(Self {
            direction: place.direction(),
            reason: Reason::from_number(place.reason())?,
            protocol: place.protocol(),
            port: place.port(),
            peer: place.addr().into(),
            packets: place.packets,
            error: place.error,
            dropped: place.dropped,
            first: booted.saturating_add(place.first),
            last: booted.saturating_add(place.last),
        })
    }

    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.error += other.error;
        self.dropped += other.dropped;
        self.first = self.first.min(other.first);
        if other.last > self.last {
            self.last = other.last;
            self.peer = other.peer;
        }
    }
}

/// What a peer stands for: an IPv6 address for its /64.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

/// The heaviest keys of a stream.
#[derive(Debug, Clone)]
pub struct Heaviest<K> {
    places: usize,
    counts: BTreeMap<K, Weight>,
    total: u64,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// At least the true weight.
    pub count: u64,
    /// By how much it may be too high.
    pub error: u64,
}

impl<K: Ord + Clone> Heaviest<K> {
    /// With room for so many keys.
    pub fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            counts: BTreeMap::new(),
            total: 0,
        }
    }

    /// Adds weight to a key.
    pub fn add(&mut self, key: K, weight: u64) {
        self.total += weight;
        if let Some(known) = self.counts.get_mut(&key) {
            known.count += weight;
            return;
        }
        let mut error = 0;
        if self.counts.len() >= self.places {
            let lightest = self
                .counts
                .iter()
                .min_by_key(|(_, weight)| weight.count)
                .map(|(key, weight)| (key.clone(), weight.count));
            if let Some((key, count)) = lightest {
                self.counts.remove(&key);
                error = count;
            }
        }
        let count = error + weight;
        self.counts.insert(key, Weight { count, error });
    }

    /// The heaviest, heaviest first.
    pub fn top(&self, count: usize) -> Vec<(&K, Weight)> {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .map(|(key, weight)| (key, *weight))
            .collect();
        all.sort_by_key(|(_, weight)| std::cmp::Reverse(weight.count));
        all.truncate(count);
        all
    }

    /// All weight that was added.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use portguard_common::addr::Addr;
    use portguard_common::knock::Who;

    use super::*;

    #[test]
    fn shares_of_cpus_are_one_cause() {
        let peer = |low| Addr::v6(0x2001_0db8_0000_0001, low);
        let who = |low| Who::new(peer(low), Direction::Ingress, 16, 6, 23);
        let mut first = abi::Knocks::default();
        first.places[0] = first.places[0].add(&who(7), 5, true, 100);
        let mut second = abi::Knocks::default();
        second.places[3] = second.places[3].add(&who(9), 2, false, 50);
        let other = Who::new(Addr::v4(1), Direction::Egress, 17, 17, 53);
        second.places[4] = second.places[4].add(&other, 1, false, 60);

        let knocks = Knocks::sum(&[vec![first, second]], 1000);
        assert_eq!(knocks.bound, 0);
        let [heavy, light] = knocks.heaviest[..] else {
            panic!("{knocks:?}")
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
        assert_eq!(Knocks::sum(&[vec![first, second]], 0).bound, 10);
    }

    #[test]
    fn a_flood_of_sources_neither_grows_it_nor_hides_the_heavy() {
        const PLACES: usize = 64;
        let mut heaviest = Heaviest::new(PLACES);
        let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..200_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // One in eight of one source, one in sixteen of another, the rest spoofed at random.
            let key = match step % 16 {
                0 | 8 => 1,
                4 => 2,
                _ => random | 1 << 63,
            };
            heaviest.add(key, 1);
            *truth.entry(key).or_default() += 1;
        }
        assert_eq!(heaviest.counts.len(), PLACES);
        let bound = heaviest.total() / PLACES as u64;
        let top = heaviest.top(PLACES);
        assert_eq!((top[0].0, top[1].0), (&1, &2));
        for (key, weight) in top {
            let true_weight = truth[key];
            assert!(weight.count >= true_weight);
            assert!(weight.count - weight.error <= true_weight);
            assert!(weight.error <= bound, "{} > {bound}", weight.error);
        }
    }
}
