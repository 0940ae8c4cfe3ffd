//! Takes over what containers, and others behind this host, had open before its state was made: their sockets are not here, but
//! the kernel's connection tracking knows who began.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use portguard_common::conntrack::{Class, Record, Tuple, record};
use portguard_common::packet::{protocol, space};
use portguard_policy::catalog::Transport;
use portguard_policy::policy::Policy;

use super::Namespace;
use super::adopt::{Writer, tuple};
use super::outside::{self, Sides};
use super::served::Served;
use crate::host::links;
use crate::host::paths::route;
use crate::host::sockets::{Began, Session, streams};
use crate::host::tracked::{Tracked, tracked};
use crate::notice;
use crate::probe::{Probe, is_granted};
use crate::record::record_of;

/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// The TCP connections of others that pass through this host, as its packets have them outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passing {
    /// Begun behind this host.
    pub inside: Vec<Session>,
    /// Begun by sockets of this host whose packets the packet filter sends elsewhere; with the ends that the sockets have.
    pub translated: Vec<(Session, (SocketAddr, SocketAddr))>,
    /// Begun outside, to somebody behind this host.
    pub outside: Vec<Session>,
    /// Taken up midway by connection tracking, so that nothing tells who began them.
    pub unclear: Vec<Session>,
    /// Whether the kernel tracks any connections at all.
    pub is_tracked: bool,
}

/// Those that pass an interface, which has a guard or is about to, with all others that are `coming`, and that a policy judges.
///
/// # Errors
/// If interfaces cannot be listed.
pub fn passing(interface: u32, coming: &[u32], policy: &Policy) -> crate::Result<Passing> {
    let own = links::above(&links::all()?, [interface]);
    let ways = Ways::new(outside::outside(coming)?, policy, route);
    Ok(ways.sort(&tracked_or_none(), Some(&own)))
}

/// So many conversations of datagrams are looked at: anybody can forge some.
const DATAGRAMS: usize = 16_384;

/// Makes those known that were begun behind this host and leave by interfaces that are about to be guarded, or by one that is;
/// and of datagrams, who spoke first.
///
/// # Errors
/// If the table of conversations cannot be written.
pub(crate) fn take_over(
    namespace: &Namespace,
    coming: &[u32],
    policy: &Policy,
) -> crate::Result<()> {
    let ways = Ways::new(outside::outside(coming)?, policy, route);
    let all = tracked_or_none();
    let mut found = ways.sort(&all, None);
    if namespace.follows_sockets() && !found.translated.is_empty() {
        let sockets = streams()?;
        for (session, ends) in &mut found.translated {
            session.cookie = sockets.get(ends).copied().unwrap_or(0);
        }
    }
    let translated = found.translated.iter().map(|(session, _)| session);
    let mut writer = Writer::open(namespace.directory())?;
    let mut lost = 0;
    for session in found.inside.iter().chain(translated) {
        let done = writer.write(&Record {
            set: session.cookie,
            ..record_of(&tuple(session), record::OURS, Class::Packets)
        })?;
        lost += usize::from(done == record::LOST);
    }
    let served = Served::by([policy]);
    let Datagrams { inside, outside } = ways.datagrams(&all, |port| served.has(port));
    for one in outside {
        writer.write(&record_of(&one, record::THEIRS, Class::Datagrams))?;
    }
    for one in inside {
        writer.write(&record_of(&one, record::OURS, Class::Forwarded))?;
    }
    if lost > 0 {
        notice::warn(&format!(
            "there was no room for {lost} connections that others began behind this host: the site's `flows` is too small"
        ));
    }
    Ok(())
}

fn datagram(remote: SocketAddr, local: SocketAddr) -> Tuple {
    Tuple {
        space: space(protocol::UDP),
        local: local.ip().into(),
        remote: remote.ip().into(),
        local_port: local.port(),
        remote_port: remote.port(),
    }
}

/// Who spoke first in conversations of datagrams that pass, as they are outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Datagrams {
    /// Somebody behind this host.
    inside: Vec<Tuple>,
    /// Somebody outside.
    outside: Vec<Tuple>,
}

fn tracked_or_none() -> Vec<Tracked> {
    tracked().unwrap_or_else(|error| {
        tracing::info!("the kernel does not list tracked connections: {error:#}");
        Vec::new()
    })
}

/// Which ways packets go, and by which policy.
struct Ways<'a, R> {
    outside: Sides,
    policy: &'a Policy,
    /// The interface by which packets to an address leave.
    route: R,
    routes: RefCell<BTreeMap<IpAddr, Option<u32>>>,
}

impl<'a, R: Fn(IpAddr) -> Option<u32>> Ways<'a, R> {
    fn new(outside: Sides, policy: &'a Policy, route: R) -> Self {
        Self {
            outside,
            policy,
            route,
            routes: RefCell::default(),
        }
    }

    fn by(&self, address: IpAddr) -> Option<u32> {
        let mut routes = self.routes.borrow_mut();
        *routes
            .entry(address)
            .or_insert_with(|| (self.route)(address))
    }

    fn side(&self, by: Option<u32>) -> Option<u32> {
        self.outside.get(&by?).copied()
    }

    /// Whether a guard judges what comes in for an address, and does not leave it to others.
    fn is_judged(&self, address: IpAddr) -> bool {
        self.policy.settings.host_addresses.is_none() || self.by(address) == Some(LOOPBACK)
    }

    /// Whether the first packet came in by one guarded interface, by right, and left by another: a question, to that one.
    fn passes(&self, one: &Tracked) -> bool {
        let (from, to) = one.first;
        let [came, goes] = [from, one.answer.0].map(|end| self.side(self.by(end.ip())));
        let probe = Probe {
            transport: one.transport,
            peer: from.ip(),
            port: to.port(),
        };
        came.is_some()
            && goes.is_some()
            && came != goes
            && (!self.is_judged(to.ip()) || is_granted(self.policy, &probe))
    }

    /// What leaves from a port that `is_served` begins nothing, so that its callers do not matter. By which interface packets go
    /// is not asked where it does not: marks and sources may send them another way than to the address alone.
    fn datagrams(&self, all: &[Tracked], is_served: impl Fn(u16) -> bool) -> Datagrams {
        let mut found = Datagrams::default();
        let is_published = |one: &Tracked| self.by(one.first.1.ip()) == Some(LOOPBACK);
        let (calls, others): (Vec<&Tracked>, Vec<&Tracked>) = all
            .iter()
            .filter(|one| one.transport == Transport::Udp && !is_served(one.first.0.port()))
            .partition(|one| is_published(one) && is_served(one.first.1.port()));
        let left = (calls.len() + others.len()).saturating_sub(DATAGRAMS);
        if left > 0 {
            notice::warn(&format!(
                "connection tracking lists {left} conversations of datagrams more than are looked at: who has one of them is answered once it asks again"
            ));
        }
        // Those who call services are known by that, mostly, and may be many.
        for one in others.into_iter().chain(calls).take(DATAGRAMS) {
            let ((remote, local), inside) = (one.first, one.answer.0);
            let (goes, from) = (self.by(inside.ip()), self.by(remote.ip()));
            if goes == Some(LOOPBACK) || from == Some(LOOPBACK) {
                continue;
            }
            // What is published may be called by an interface that only marks or sources tell.
            let is_known = is_published(one) && is_served(local.port());
            let is_call = self.side(from).is_some() || is_published(one) && !is_known;
            if is_call && !self.passes(one) {
                found.outside.push(datagram(remote, local));
            } else if from.is_some() {
                found.inside.push(datagram(inside, one.answer.1));
            }
        }
        found
    }

    /// Sorts connections that pass by some interfaces, which are among those outside; or of all that pass, those that may.
    fn sort(&self, all: &[Tracked], own: Option<&BTreeSet<u32>>) -> Passing {
        let mut found = Passing {
            is_tracked: !all.is_empty(),
            ..Passing::default()
        };
        let is_own = |by: Option<u32>| by.is_some_and(|by| own.is_none_or(|own| own.contains(&by)));
        for one in all {
            // What nobody answers may be forged, each by another sender: nothing is asked about those.
            if one.transport != Transport::Tcp || !one.is_open || !one.is_answered {
                continue;
            }
            let (goes, from) = (self.by(one.answer.0.ip()), self.by(one.first.0.ip()));
            let leaves =
                is_own(goes) && goes != Some(LOOPBACK) && self.is_judged(one.answer.1.ip());
            let arrives = own.is_some()
                && is_own(from)
                && goes != Some(LOOPBACK)
                && self.is_judged(one.first.1.ip());
            let is_here = from == Some(LOOPBACK);
            // What no packet filter translates and comes from a socket here is known by that.
            if is_here && !is_translated(one) {
                continue;
            }
            let session = |(remote, local), began| Session {
                local,
                remote,
                is_tcp: true,
                began,
                cookie: 0,
                interface: 0,
            };
            if !one.is_begun {
                if leaves || arrives {
                    let ends = if leaves { one.answer } else { one.first };
                    found.unclear.push(session(ends, Began::Unclear));
                }
                continue;
            }
            if arrives {
                found.outside.push(session(one.first, Began::Peer));
            }
            if !leaves {
                continue;
            }
            let session = session(one.answer, Began::Host);
            if is_here {
                found.translated.push((session, one.first));
            } else if from.is_some() && self.side(from).is_none() || self.passes(one) {
                found.inside.push(session);
            }
        }
        found
    }
}

fn is_translated(one: &Tracked) -> bool {
    let (from, to) = one.first;
    one.answer != (to, from)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const OUTSIDE: u32 = 2;
    const BEHIND: u32 = 3;

    fn end(text: &str) -> SocketAddr {
        text.parse().expect("an end")
    }

    fn one(first: [&str; 2], answer: [&str; 2]) -> Tracked {
        let ends = |[from, to]: [&str; 2]| (end(from), end(to));
        Tracked {
            transport: Transport::Tcp,
            first: ends(first),
            answer: ends(answer),
            is_begun: true,
            is_answered: true,
            is_open: true,
        }
    }

    /// This host is 10.1.0.1, others behind it are in 10.9.0.0/16, and everybody else is outside.
    fn route(to: IpAddr) -> u32 {
        let text = to.to_string();
        match &*text {
            "10.1.0.1" => LOOPBACK,
            _ if text.starts_with("10.9.") => BEHIND,
            _ => OUTSIDE,
        }
    }

    fn ways(policy: &Policy) -> Ways<'_, impl Fn(IpAddr) -> Option<u32>> {
        Ways::new([(OUTSIDE, OUTSIDE)].into(), policy, |to| Some(route(to)))
    }

    fn sorted(all: &[Tracked]) -> Passing {
        ways(&Policy::default()).sort(all, Some(&[OUTSIDE].into()))
    }

    #[test]
    fn who_began_behind_this_host_and_who_outside_is_told_apart() {
        const SERVER: &str = "192.0.2.1:443";
        let masked = one(["10.9.0.2:4000", SERVER], [SERVER, "10.1.0.1:50000"]);
        let published = one(
            ["192.0.2.7:5000", "10.1.0.1:18080"],
            ["10.9.0.2:80", "192.0.2.7:5000"],
        );
        // Known by their sockets, within this host, or to its own sockets.
        let socket = one(["10.1.0.1:4001", SERVER], [SERVER, "10.1.0.1:4001"]);
        let served = one(
            ["192.0.2.7:5001", "10.1.0.1:22"],
            ["10.1.0.1:22", "192.0.2.7:5001"],
        );
        let inner = one(
            ["10.9.0.2:4000", "10.9.0.3:80"],
            ["10.9.0.3:80", "10.9.0.2:4000"],
        );
        let redirected = one(["10.1.0.1:4002", "10.1.0.1:9"], [SERVER, "10.1.0.1:4002"]);
        let found = sorted(&[masked, published, socket, served, inner, redirected]);
        let ends = |all: &[Session]| -> Vec<(SocketAddr, SocketAddr)> {
            all.iter().map(|one| (one.local, one.remote)).collect()
        };
        assert_eq!(ends(&found.inside), [(end("10.1.0.1:50000"), end(SERVER))]);
        assert_eq!(
            ends(&found.outside),
            [(end("10.1.0.1:18080"), end("192.0.2.7:5000"))]
        );
        let [(translated, of_socket)] = &found.translated[..] else {
            panic!("{:?}", found.translated);
        };
        assert_eq!(
            (translated.local, translated.remote),
            (end("10.1.0.1:4002"), end(SERVER))
        );
        assert_eq!(*of_socket, (end("10.1.0.1:4002"), end("10.1.0.1:9")));
        assert!(found.is_tracked && found.unclear.is_empty());
    }

    #[test]
    fn who_spoke_first_by_datagrams_is_known_and_what_is_served_asks_nothing() {
        const SERVER: &str = "192.0.2.1:443";
        const CALLER: &str = "192.0.2.7:5000";
        let udp = |first, answer| Tracked {
            transport: Transport::Udp,
            is_open: false,
            ..one(first, answer)
        };
        let asks = udp(["10.9.0.2:4000", SERVER], [SERVER, "10.1.0.1:50000"]);
        let called = udp([CALLER, "10.1.0.1:9999"], ["10.9.0.2:9999", CALLER]);
        let other_end = udp(["10.9.0.3:9998", CALLER], [CALLER, "10.1.0.1:50001"]);
        let own = udp(
            ["192.0.2.8:53", "10.1.0.1:53"],
            ["10.1.0.1:53", "192.0.2.8:53"],
        );
        let policy = Policy::default();
        let found = ways(&policy).datagrams(&[asks, called, other_end, own], |port| port == 9998);
        let ends = |all: &[Tuple]| -> Vec<String> {
            all.iter()
                .map(|one| {
                    let [local, remote] = [one.local, one.remote].map(IpAddr::from);
                    format!("{local}:{} {remote}:{}", one.local_port, one.remote_port)
                })
                .collect()
        };
        assert_eq!(ends(&found.inside), ["10.1.0.1:50000 192.0.2.1:443"]);
        assert_eq!(ends(&found.outside), ["10.1.0.1:9999 192.0.2.7:5000"]);
    }

    /// Guarded on both sides: by the scope, what is for others is none of the guard's business, and so it may ask.
    #[test]
    fn what_comes_by_one_guarded_side_and_leaves_by_the_other_is_a_question_if_it_may() {
        const SERVER: &str = "192.0.2.1:443";
        const CALLER: &str = "192.0.2.7:5000";
        let masked = one(["10.9.0.2:4000", SERVER], [SERVER, "10.1.0.1:50000"]);
        let published = one([CALLER, "10.1.0.1:9999"], ["10.9.0.2:9999", CALLER]);
        let all = [masked, published];
        let datagrams = all.clone().map(|one| Tracked {
            transport: Transport::Udp,
            is_open: false,
            ..one
        });
        let mut policy = Policy::default();
        for is_scoped in [true, false] {
            policy.settings.host_addresses = is_scoped.then(Vec::new);
            let sides = Sides::from([(OUTSIDE, OUTSIDE), (BEHIND, BEHIND)]);
            let ways = Ways::new(sides, &policy, |to| Some(route(to)));
            let [outer, inner] = [OUTSIDE, BEHIND].map(|of| ways.sort(&all, Some(&[of].into())));
            let count = usize::from(is_scoped);
            // The answer of a container that is published is for the caller.
            let counts = |found: &Passing| (found.inside.len(), found.outside.len());
            assert_eq!(counts(&outer), (count, 1));
            assert_eq!(counts(&inner), (0, 1 - count));
            let found = ways.datagrams(&datagrams, |_| false);
            assert_eq!(
                (found.inside.len(), found.outside.len()),
                (count, 2 - count)
            );
        }
    }

    /// A stranger makes as many entries as there is room for, each from another sender.
    #[test]
    fn what_nobody_answers_is_neither_reported_nor_looked_up() {
        let forged: Vec<Tracked> = (0..1000u16)
            .map(|port| Tracked {
                is_begun: false,
                is_answered: false,
                ..one(
                    [&format!("198.51.100.{}:{port}", port % 250), "10.9.0.2:80"],
                    ["10.9.0.2:80", &format!("198.51.100.{}:{port}", port % 250)],
                )
            })
            .collect();
        let asked = Cell::new(0);
        let policy = Policy::default();
        let ways = Ways::new([(OUTSIDE, OUTSIDE)].into(), &policy, |to| {
            asked.set(asked.get() + 1);
            Some(route(to))
        });
        let found = ways.sort(&forged, Some(&[OUTSIDE].into()));
        assert_eq!((found.unclear.len(), asked.get()), (0, 0));
        let answered = Tracked {
            is_answered: true,
            ..forged[0].clone()
        };
        let [unclear] = &sorted(&[answered]).unclear[..] else {
            panic!("one is listed");
        };
        assert_eq!(
            (unclear.local, unclear.remote, unclear.began),
            (end("10.9.0.2:80"), end("198.51.100.0:0"), Began::Unclear)
        );
    }
}
