//! By which interface the packets of a session arrive, and at which port: what a guard there sees of it. The addresses of the
//! interface itself do not tell: they may be on a bridge, a VLAN or a macvlan above it, or on the loopback interface; and the
//! packet filter may hand a port on to another one before any socket sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::interface::Interface;
use super::links::{self, Link};
use super::nat::{self, Published, World};
use super::outer::Outer;
use super::paths::{By, Paths};
use super::sockets::Session;
use super::tracked::tracked;
use portguard_policy::catalog::Transport;

/// What decides it, for a guard on an interface.
#[expect(missing_debug_implementations, reason = "it holds a program")]
pub struct Arrivals<'a> {
    paths: &'a Paths,
    /// The interface and what stands on it, without tunnels.
    above: BTreeSet<u32>,
    /// By the interface on which they end, or that stands on it: tunnels of which packets arrive here.
    tunnels: BTreeMap<u32, Outer>,
    /// Ports that are handed on to another port of this host.
    redirects: Vec<Published>,
    /// The port that peers began each connection with, where the kernel's connection tracking knows it: by the ends that the
    /// host's own socket has.
    tracked: BTreeMap<(Transport, SocketAddr, SocketAddr), u16>,
}

/// Whether packets of a session arrive at a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Through {
    /// They do.
    Here,
    /// They do, inside of others.
    Inside(Outer),
    /// They may: nothing says by which of several interfaces they come.
    Maybe,
    /// They do not.
    Elsewhere,
}

impl<'a> Arrivals<'a> {
    /// What a guard on an interface sees.
    pub fn at(interface: &Interface, paths: &'a Paths) -> Self {
        let guarded = std::slice::from_ref(&interface.name);
        let redirects = nat::read(&World::here(guarded)).published.into_iter();
        let redirects: Vec<Published> = redirects.filter(|one| one.is_host).collect();
        let tracked = if redirects.is_empty() {
            BTreeMap::new()
        } else {
            let all = tracked().unwrap_or_default().into_iter();
            all.map(|one| {
                let (local, remote) = one.answer;
                ((one.transport, local, remote), one.first.1.port())
            })
            .collect()
        };
        let mut found = Self {
            paths,
            above: plain_above(paths.links(), interface.index),
            tunnels: BTreeMap::new(),
            redirects,
            tracked,
        };
        found.tunnels = found.tunnels();
        found
    }

    /// Tunnels that arrive here, the outermost first, whose packets are what a guard sees of those inside.
    fn tunnels(&self) -> BTreeMap<u32, Outer> {
        let links = self.paths.links();
        let mut found: BTreeMap<u32, Outer> = BTreeMap::new();
        loop {
            let count = found.len();
            for (link, outer) in links
                .iter()
                .filter_map(|link| Some((link, link.outer.as_ref()?)))
            {
                if found.contains_key(&link.index) {
                    continue;
                }
                let carrier = match self.below(link, outer) {
                    Some(below) if self.above.contains(&below) => outer.clone(),
                    Some(below) => match found.get(&below) {
                        Some(outermost) => outermost.clone(),
                        None => continue,
                    },
                    // Where it comes from is not known: from here, too.
                    None => outer.clone(),
                };
                for index in plain_above(links, link.index) {
                    found.entry(index).or_insert_with(|| carrier.clone());
                }
            }
            if found.len() == count {
                return found;
            }
        }
    }

    /// The interface by which the packets of a tunnel arrive; `None` = not known.
    fn below(&self, link: &Link, outer: &Outer) -> Option<u32> {
        let by = |peer: IpAddr| self.paths.leaving(peer, None, 0).map(|leaving| leaving.by);
        let somewhere = || {
            // Addresses for documents: nobody has a route of their own to them.
            by(Ipv4Addr::new(192, 0, 2, 1).into())
                .or_else(|| by(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
        };
        let below = link.below.filter(|below| *below != 0);
        below
            .or_else(|| outer.remote.and_then(by))
            .or_else(somewhere)
            // What sends everything into itself says nothing of where it comes from.
            .filter(|below| *below != link.index)
    }

    /// Whether packets of a session arrive here.
    pub(super) fn through(&self, session: &Session) -> Through {
        let (answered, on) = match self.paths.by(session) {
            By::Within => return Through::Elsewhere,
            By::Sure(index) => return self.by(index),
            By::Guess { answered, on } => (answered, on),
        };
        let answered = answered.map(|index| self.by(index));
        let is_here = |index: &u32| self.above.contains(index) || self.paths.is_loopback(*index);
        match answered {
            Some(Through::Inside(outer)) => Through::Inside(outer),
            // A local route, or an address that has gone: nothing says where its packets come from.
            None => Through::Here,
            _ if on.is_empty() || on.iter().any(is_here) => Through::Here,
            Some(Through::Elsewhere) => {
                let peer = session.remote.ip();
                if self.paths.takes_from_elsewhere(&self.above, peer) {
                    Through::Maybe
                } else {
                    Through::Elsewhere
                }
            }
            Some(through) => through,
        }
    }

    /// Whether what arrives by an interface arrives here.
    fn by(&self, index: u32) -> Through {
        if self.above.contains(&index) {
            Through::Here
        } else if let Some(outer) = self.tunnels.get(&index) {
            Through::Inside(outer.clone())
        } else {
            Through::Elsewhere
        }
    }

    /// The ports for which packets of a session may arrive: one where it is known.
    pub(super) fn ports(&self, session: &Session) -> Vec<u16> {
        let inner = session.local.port();
        if self.redirects.is_empty() {
            return vec![inner];
        }
        let key = (session.transport(), session.local, session.remote);
        if let Some(port) = self.tracked.get(&key) {
            return vec![*port];
        }
        let outside = self.redirects.iter().filter(|one| {
            one.transport == session.transport() && one.inner_ports().contains(&inner)
        });
        let outside = outside.map(|one| {
            let (first, _) = one.ports().into_inner();
            let (inner_first, _) = one.inner_ports().into_inner();
            match one.inside {
                // A range is handed on port by port only where it has as many ports inside.
                Some((start, end)) if start != end => first.saturating_add(inner - inner_first),
                _ => first,
            }
        });
        let mut ports: Vec<u16> = std::iter::once(inner).chain(outside).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// An interface and those that get its packets as they are: what a tunnel brings is inside of others.
fn plain_above(links: &[Link], index: u32) -> BTreeSet<u32> {
    let is_plain = |link: &&Link| link.outer.is_none() || link.index == index;
    let plain: Vec<Link> = links.iter().filter(is_plain).cloned().collect();
    links::above(&plain, [index])
}
