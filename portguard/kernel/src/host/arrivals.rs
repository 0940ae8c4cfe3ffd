//! By which interface the packets of a session arrive, and at which port: what a guard there sees of it. The addresses of the
//! interface itself do not tell: they may be on a bridge, a VLAN or a macvlan above it, or on the loopback interface; and the
//! packet filter may hand a port on to another one before any socket sees it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::ifaddrs::getifaddrs;

use super::interface::Interface;
use super::nat::{self, Published, World, above};
use super::netlink::request;
use super::sockets::Session;
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
    /// The port that each connection was begun with, where the kernel's connection tracking knows it.
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
            let table = fs::read_to_string("/proc/thread-self/net/nf_conntrack");
            tracked(&table.unwrap_or_default())
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
        let by = routes.entry(peer).or_insert_with(|| route(peer));
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

/// By which interface packets to a peer leave; `None` = the kernel does not say.
fn route(peer: IpAddr) -> Option<String> {
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
                Interface::name_of(index)
            } else {
                None
            }
        })
    })
}

/// The port that peers began connections with, by the connection as this host's sockets have it. A line has the packets of
/// the beginning, and then those of the answer:
/// `ipv4 2 tcp 6 99 ESTABLISHED src=A dst=B sport=1 dport=2222 src=B dst=A sport=22 dport=1 [ASSURED] ...`
fn tracked(table: &str) -> BTreeMap<(Transport, SocketAddr, SocketAddr), u16> {
    table.lines().filter_map(tracked_line).collect()
}

fn tracked_line(line: &str) -> Option<((Transport, SocketAddr, SocketAddr), u16)> {
    let mut words = line.split_whitespace();
    let transport = match words.nth(2)? {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        _ => return None,
    };
    let values = |key: &str| -> Vec<&str> {
        let words = line.split_whitespace();
        words
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .collect()
    };
    let (sources, destinations) = (values("src"), values("dst"));
    let (source_ports, ports) = (values("sport"), values("dport"));
    let end = |address: &str, port: &str| -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
    };
    let local = end(sources.get(1)?, source_ports.get(1)?)?;
    let remote = end(destinations.get(1)?, ports.get(1)?)?;
    Some(((transport, local, remote), ports.first()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_first_packet_is_found_by_the_connection_of_the_socket() {
        let table = "\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.1.0.254 dst=10.1.0.1 sport=50000 dport=2222 src=10.1.0.1 dst=10.1.0.254 sport=22 dport=50000 [ASSURED] mark=0 use=1
ipv6     10 udp      17 20 src=fd00::2 dst=fd00::1 sport=9 dport=5353 [UNREPLIED] src=fd00::1 dst=fd00::2 sport=53 dport=9 mark=0 use=2
ipv4     2 icmp     1 20 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1 mark=0 use=2
ipv4     2 tcp      6 1 SYN_SENT src=10.0.0.1
";
        let found = tracked(table);
        let key = |transport, local: &str, remote: &str| {
            (transport, local.parse().unwrap(), remote.parse().unwrap())
        };
        let wanted = [
            (key(Transport::Tcp, "10.1.0.1:22", "10.1.0.254:50000"), 2222),
            (key(Transport::Udp, "[fd00::1]:53", "[fd00::2]:9"), 5353),
        ];
        assert_eq!(found, wanted.into());
    }
}
