//! By which interface the packets of sessions arrive, as far as the kernel says. It is asked once for all guards.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::ifaddrs::getifaddrs;
use portguard_common::conntrack::Tuple;
use portguard_common::packet::{protocol, space};

use super::btf;
use super::links::{self, Link};
use super::netlink::request;
use super::sockets::Session;
use crate::record::Asked;

/// Name of the program that looks at a connection.
const PROGRAM: &str = "portguard_arrival";
/// The global that it finds the interface by.
const GLOBAL: &str = "ARRIVED";

/// A peer, the address that answers it, and the interface that the socket is bound to; 0 = any.
type Asking = (IpAddr, Option<IpAddr>, u32);

/// What decides it, of this network namespace.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "it holds a program")]
pub struct Paths {
    links: Vec<Link>,
    /// Which interface each address is on.
    addresses: Vec<(IpAddr, u32)>,
    /// What asks connections; nothing where the kernel does not say.
    asked: RefCell<Option<Asked>>,
    arrived: RefCell<BTreeMap<(SocketAddr, SocketAddr), Option<u32>>>,
    /// By which interface each peer is answered, from each address and each interface that a socket is bound to.
    routes: RefCell<BTreeMap<Asking, Option<Leaving>>>,
}

/// By which interface a session's packets arrive.
pub(super) enum By {
    /// By none: it is within the host.
    Within,
    /// By this one: its socket says so.
    Sure(u32),
    /// Its socket does not say.
    Guess {
        /// The interface by which it is answered.
        answered: Option<u32>,
        /// Those that have its own address.
        on: Vec<u32>,
    },
}

/// How packets to a peer leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// By this interface.
    pub(crate) by: u32,
    /// The peer is this host.
    is_here: bool,
}

impl Paths {
    /// Of the network namespace of the calling thread.
    pub fn here() -> Self {
        let links = links::all().unwrap_or_default();
        let addresses = getifaddrs().into_iter().flatten().filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            let on = links.iter().find(|link| link.name == one.interface_name)?;
            Some((v4.or_else(v6)?, on.index))
        });
        let addresses = addresses.collect();
        let asked = place().and_then(|at| {
            Asked::load(PROGRAM, (GLOBAL, at))
                .inspect_err(|error| {
                    tracing::info!("the kernel does not say where connections arrive: {error:#}");
                })
                .ok()
        });
        Self {
            links,
            addresses,
            asked: RefCell::new(asked),
            ..Self::default()
        }
    }

    /// By which interface a session's packets arrive.
    pub(super) fn by(&self, session: &Session) -> By {
        let (own, peer) = (session.local.ip(), session.remote.ip());
        let from = (!own.is_unspecified()).then_some(own);
        let leaving = self.leaving(peer, from, session.interface);
        if leaving.is_some_and(|leaving| leaving.is_here) {
            return By::Within;
        }
        match self.arrived(session) {
            Some(index) if self.is_loopback(index) => return By::Within,
            Some(index) => return By::Sure(index),
            None if session.interface != 0 => return By::Sure(session.interface),
            None => {}
        }
        let on = self.addresses.iter().filter(|(address, _)| *address == own);
        By::Guess {
            answered: leaving.map(|leaving| leaving.by),
            on: on.map(|(_, index)| *index).collect(),
        }
    }

    /// The interface by which the last packets of a connection came; `None` = that is not known.
    fn arrived(&self, session: &Session) -> Option<u32> {
        if !session.is_tcp {
            return None;
        }
        let mut arrived = self.arrived.borrow_mut();
        *arrived
            .entry((session.local, session.remote))
            .or_insert_with(|| {
                let tuple = Tuple {
                    space: space(protocol::TCP),
                    local: session.local.ip().into(),
                    remote: session.remote.ip().into(),
                    local_port: session.local.port(),
                    remote_port: session.remote.port(),
                };
                let mut asked = self.asked.borrow_mut();
                let found = asked.as_mut()?.of(&tuple, session.interface);
                found.ok().filter(|index| *index != 0)
            })
    }

    /// How packets to a peer leave, from an address, and an interface that the socket is bound to; 0 = none.
    pub(super) fn leaving(
        &self,
        peer: IpAddr,
        from: Option<IpAddr>,
        bound: u32,
    ) -> Option<Leaving> {
        let mut routes = self.routes.borrow_mut();
        *routes.entry((peer, from, bound)).or_insert_with(|| {
            // An address that has gone has no route: the peer still has one.
            leaving(peer, from, bound).or_else(|| leaving(peer, None, bound))
        })
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn is_loopback(&self, index: u32) -> bool {
        let mut links = self.links.iter();
        links.any(|link| link.index == index && link.is_loopback)
    }

    /// Whether one of these interfaces takes packets of a peer that is answered by another one.
    pub(super) fn takes_from_elsewhere(&self, among: &BTreeSet<u32>, peer: IpAddr) -> bool {
        const STRICT: u32 = 1;
        if peer.is_ipv6() {
            return true;
        }
        let setting = |name: &str| -> u32 {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or_default()
        };
        let of_all = setting("all");
        let mut links = self.links.iter();
        links.any(|link| among.contains(&link.index) && of_all.max(setting(&link.name)) != STRICT)
    }
}

/// Where the kernel's sockets say by which interface packets came, in octets; `None` where it is not known, or may not be read.
fn place() -> Option<u32> {
    let now = btf::member("sock", "sk_rx_dst_ifindex");
    let before = || btf::member("inet_sock", "rx_dst_ifindex");
    now.or_else(before).map(|at| at / 8)
}

/// The interface by which packets to a peer leave; `None` = the kernel does not say.
pub(crate) fn route(peer: IpAddr) -> Option<u32> {
    leaving(peer, None, 0).map(|leaving| leaving.by)
}

/// The same by all the kernel's rules: from an address, and an interface that a socket is bound to; 0 = none.
fn leaving(peer: IpAddr, from: Option<IpAddr>, bound: u32) -> Option<Leaving> {
    let mut message = RouteMessage::default();
    let whole = |address: IpAddr| match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    let (family, length, destination) = whole(peer);
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(destination));
    if let Some(from) = from.filter(|from| from.is_ipv4() == peer.is_ipv4()) {
        let (_, length, source) = whole(from);
        message.header.source_prefix_length = length;
        attributes.push(RouteAttribute::Source(source));
    }
    if bound != 0 {
        attributes.push(RouteAttribute::Oif(bound));
    }
    let answers = request(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(message), 0).ok()?;
    answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            return None;
        };
        let is_here = route.header.kind == RouteType::Local;
        route.attributes.into_iter().find_map(|attribute| {
            if let RouteAttribute::Oif(by) = attribute {
                Some(Leaving { by, is_here })
            } else {
                None
            }
        })
    })
}
