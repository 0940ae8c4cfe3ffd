//! IPv6 peers that have all of their /64 to send from: told apart while they are few, one talker where they are many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::{Talker, Talkers};

/// More addresses of a /64 than this that do the same are a crowd.
const SAME: usize = 16;

/// More addresses of a /64 than this are one, whatever they do.
const ANY: usize = 128;

/// What a talker does: direction, reason, protocol, port, whether that is a client's, and the service.
pub(crate) type Deed<'a> = (&'a str, &'a str, u8, u16, bool, u16);

/// The same, and the IPv6 /64 that it is done from.
pub(crate) type Crowd<'a> = (Deed<'a>, Ipv6Net);

impl Talkers {
    /// The same with crowds gathered, heaviest first; those that are `known` are gathered though there are few left.
    #[must_use]
    pub(crate) fn gathered(&self, known: &BTreeSet<Crowd<'_>>) -> Self {
        let mut heaviest = gather(&self.heaviest, known);
        heaviest.sort_by_key(|talker| std::cmp::Reverse(talker.packets));
        Self { heaviest, ..*self }
    }
}

/// Crowds gathered into a talker each.
fn gather(talkers: &[Talker], known: &BTreeSet<Crowd<'_>>) -> Vec<Talker> {
    let mut same: BTreeMap<Crowd<'_>, usize> = BTreeMap::new();
    let mut any: BTreeMap<Ipv6Net, BTreeSet<IpAddr>> = BTreeMap::new();
    for talker in talkers {
        if let Some(network) = network(talker.peer) {
            *same.entry((talker.deed(), network)).or_default() += 1;
            any.entry(network).or_default().insert(talker.peer);
        }
    }
    let is_crowd = |crowd: &Crowd<'_>| {
        known.contains(crowd)
            || same.get(crowd).is_some_and(|count| *count > SAME)
            || any.get(&crowd.1).is_some_and(|all| all.len() > ANY)
    };
    let mut gathered = Vec::new();
    let mut crowds: BTreeMap<Crowd<'_>, Talker> = BTreeMap::new();
    for talker in talkers {
        let crowd = network(talker.peer).map(|network| (talker.deed(), network));
        match crowd.filter(is_crowd) {
            None => gathered.push(*talker),
            Some(crowd) => {
                let one = Talker {
                    is_crowd: true,
                    ..*talker
                };
                let add = |known: &mut Talker| known.add(talker);
                crowds.entry(crowd).and_modify(add).or_insert(one);
            }
        }
    }
    gathered.extend(crowds.into_values());
    gathered
}

impl Talker {
    /// What it does, whoever it is.
    pub(crate) fn deed(&self) -> Deed<'static> {
        (
            self.direction.name(),
            self.reason.name(self.direction),
            self.protocol,
            self.port,
            self.to_client,
            self.service,
        )
    }
}

/// The /64 of an IPv6 address.
pub(crate) fn network(peer: IpAddr) -> Option<Ipv6Net> {
    match peer {
        IpAddr::V4(_) => None,
        IpAddr::V6(peer) => Ipv6Net::new(peer, 64).ok().map(|net| net.trunc()),
    }
}

/// Who is meant: an address, or the /64 of a crowd.
pub(crate) fn whom(peer: IpAddr, is_crowd: bool) -> IpNet {
    match network(peer).filter(|_| is_crowd) {
        None => IpNet::from(peer),
        Some(network) => IpNet::V6(network),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn talker(port: u16, peer: Ipv6Addr) -> Talker {
        Talker {
            packets: 2,
            ..Talker::example(port, &peer.to_string())
        }
    }

    fn host(network: u16, number: usize) -> Ipv6Addr {
        let number = u16::try_from(number).unwrap();
        Ipv6Addr::new(0xfd66, 0, 0, network, 0, 0, 0, number)
    }

    fn names(talkers: &[Talker]) -> Vec<(String, u16, u64)> {
        let of = |one: &Talker| {
            (
                whom(one.peer, one.is_crowd).to_string(),
                one.port,
                one.packets,
            )
        };
        talkers.iter().map(of).collect()
    }

    #[test]
    fn addresses_are_told_apart_while_few_do_the_same() {
        let few: Vec<Talker> = (0..SAME).map(|one| talker(22, host(1, one))).collect();
        assert_eq!(gather(&few, &BTreeSet::new()), few);
        let mut many = few.clone();
        many.push(talker(22, host(1, SAME)));
        // Who does something else, and who is elsewhere, is still somebody.
        many.push(talker(23, host(1, 0)));
        many.push(talker(22, host(2, 0)));
        let gathered = names(&gather(&many, &BTreeSet::new()));
        let sum = 2 * u64::try_from(SAME + 1).unwrap();
        assert_eq!(
            gathered,
            [
                ("fd66:0:0:1::/128".to_owned(), 23, 2),
                ("fd66:0:0:2::/128".to_owned(), 22, 2),
                ("fd66:0:0:1::/64".to_owned(), 22, sum),
            ]
        );
    }

    #[test]
    fn whoever_takes_a_new_address_for_each_port_is_one() {
        let all = (0..=ANY).map(|one| talker(u16::try_from(one).unwrap(), host(1, one)));
        let gathered = gather(&all.collect::<Vec<_>>(), &BTreeSet::new());
        assert!(gathered.iter().all(|one| one.is_crowd), "{gathered:?}");
    }

    #[test]
    fn a_crowd_stays_one() {
        let one = talker(22, host(1, 3));
        let known = [(one.deed(), network(one.peer).unwrap())].into();
        assert_eq!(
            names(&gather(&[one], &known)),
            [("fd66:0:0:1::/64".to_owned(), 22, 2)]
        );
    }
}
