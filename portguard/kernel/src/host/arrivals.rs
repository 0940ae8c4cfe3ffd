//! By which interface the packets of a session arrive, and at which port: what a guard there sees of it. The addresses of the
//! interface itself do not tell: they may be on a bridge, a VLAN or a macvlan above it, or on the loopback interface; and the
//! packet filter may hand a port on to another one before any socket sees it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::ifaddrs::getifaddrs;

use super::interface::Interface;
use super::nat::{self, Published, World, above};
use super::netlink::request;
use super::sockets::Session;
use super::tracked::tracked;
use portguard_policy::catalog::Transport;

/// What decides it, of this network namespace.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// The interface and what stands on it.
    above: BTreeSet<String>,
    /// Which interface each address is on.
    addresses: Vec<(IpAddr, String)>,
    /// Ports that are handed on to another port of this host.
    redirects: Vec<Published>,
    /// The port that peers began each connection with, where the kernel's connection tracking knows it: by the ends that the
    /// host's own socket has.
    tracked: BTreeMap<(Transport, SocketAddr, SocketAddr), u16>,
    /// By which interface each peer is answered.
    routes: RefCell<BTreeMap<IpAddr, Option<String>>>,
}

impl Arrivals {
    /// What a guard on an interface sees.
    pub fn at(interface: &Interface) -> Self {
        let guarded = std::slice::from_ref(&interface.name);
        let addresses = getifaddrs().into_iter().flatten().filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            Some((v4.or_else(v6)?, one.interface_name))
        });
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
        Self {
            above: above(guarded),
            addresses: addresses.collect(),
            redirects,
            tracked,
            routes: RefCell::default(),
        }
    }

    /// Whether packets of a session may arrive by the interface.
    pub fn is_through(&self, session: &Session) -> bool {
        let mut own = self.addresses.iter();
        let Some((_, on)) = own.find(|(address, _)| *address == session.local.ip()) else {
            // A local route, or an address that has gone: nothing says where its packets come from.
            return true;
        };
        if on == "lo" || self.above.contains(on) {
            return true;
        }
        let peer = session.remote.ip();
        let mut routes = self.routes.borrow_mut();
        let by = routes
            .entry(peer)
            .or_insert_with(|| route(peer).and_then(Interface::name_of));
        by.as_ref().is_none_or(|by| self.above.contains(by))
    }

    /// The ports for which packets of a session may arrive: one where it is known.
    pub fn ports(&self, session: &Session) -> Vec<u16> {
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

/// The interface by which packets to a peer leave; `None` = the kernel does not say.
pub(crate) fn route(peer: IpAddr) -> Option<u32> {
    let mut message = RouteMessage::default();
    let (family, length, destination) = match peer {
        IpAddr::V4(peer) => (AddressFamily::Inet, 32, RouteAddress::Inet(peer)),
        IpAddr::V6(peer) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(peer)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    let answers = request(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(message), 0).ok()?;
    answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            return None;
        };
        route.attributes.into_iter().find_map(|attribute| {
            if let RouteAttribute::Oif(index) = attribute {
                Some(index)
            } else {
                None
            }
        })
    })
}
